// What a job will take, and everything else to look at before it is submitted.
#pragma once

#include "configs/environment.h"
#include "trainer/cli/command_line.h"
#include "trainer/cli/output.h"

namespace gemma_sft {

// `jobs estimate`: from the configuration, the rows and a price table; in real mode with what the service says, where
// it can be reached.
int run_jobs_estimate(const JobsArguments& arguments, const EnvironmentReader& environment, const Output& output);

// `preflight`: the seven checks of the production guide.
int run_preflight(const JobsArguments& arguments, const EnvironmentReader& environment, const Output& output);

}  // namespace gemma_sft
