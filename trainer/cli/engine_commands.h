// The commands that need LibTorch; each gives the exit code or throws Error.
#pragma once

#include <cstdint>
#include <string>

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

// Warns where `beyond_maximum` of so many answers are longer than the model was made for.
void warn_of_long_answers(const Output& output, int64_t beyond_maximum, int64_t answers, const std::string& remedy);

}  // namespace gemma_sft
