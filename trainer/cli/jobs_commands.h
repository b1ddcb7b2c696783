// The commands of gemma-sft-jobs; each gives the exit code or throws Error or Interrupted.
#pragma once

#include "trainer/cli/command_line.h"
#include "trainer/cli/output.h"

namespace gemma_sft {

int run_tunix_train(const TrainArguments& arguments, const Output& output);
int run_jobs(const JobsArguments& arguments, const Output& output);
int run_eval_generate_job(const EvalGenerateArguments& arguments, const Output& output);

}  // namespace gemma_sft
