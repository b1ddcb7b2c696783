// The commands that need LibTorch; each gives the exit code or throws Error.
#pragma once

#include "trainer/cli/command_line.h"
#include "trainer/cli/output.h"

namespace gemma_sft {

int run_train_command(const TrainArguments& arguments, const Output& output);
int run_generate_command(const GenerateArguments& arguments, const Output& output);
int run_eval_command(const EvalArguments& arguments, const Output& output);
int run_eval_generate_command(const EvalGenerateArguments& arguments, const Output& output);
int run_selftest_command(const SelftestArguments& arguments, const Output& output);
int run_export_command(const ExportArguments& arguments, const Output& output);

// The exit code of a command that stop_signal() ended, after telling so.
int report_stop(const Output& output, const std::string& what);

}  // namespace gemma_sft
