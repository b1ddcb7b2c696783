// `train --dry-run`: the four lines and the warnings. Reads the configuration, the manifest and the config.json of the
// base model and of an adapter to go on from, no rows and no weights; creates nothing.
#pragma once

#include "trainer/cli/command_line.h"
#include "trainer/cli/output.h"

namespace gemma_sft {

// Gives the exit code, or throws Error.
int run_dry_run(const TrainArguments& arguments, const Output& output);

}  // namespace gemma_sft
