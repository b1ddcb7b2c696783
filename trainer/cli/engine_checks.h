// What the front end looks at before it starts the engine for a command: everything that is wrong and can be seen
// without LibTorch is answered in milliseconds. Throw Error.
#pragma once

#include "trainer/cli/command_line.h"
#include "trainer/cli/output.h"

namespace gemma_sft {

void check_train(const TrainArguments& arguments);
// These two warn of options that change nothing.
void check_generate(const GenerateArguments& arguments, const Output& output);
void check_eval(const EvalArguments& arguments, const Output& output);
// Reads the cases as the engine will.
void check_selftest(const SelftestArguments& arguments);
void check_export(const ExportArguments& arguments);
void check_eval_generate(const EvalGenerateArguments& arguments);

}  // namespace gemma_sft
