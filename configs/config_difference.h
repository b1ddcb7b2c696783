// What changed between the configuration a run began with and the one it is to continue with.
#pragma once

#include <string>
#include <vector>

#include "configs/run_config.h"

namespace gemma_sft {

struct ConfigDifference {
  std::string key;
  std::string before;  // as in the YAML file; "not given" for an empty optional
  std::string now;
};

// The keys whose change would give other weights, in the order of the table. Never among them: output.*, evaluation.*,
// tunix.* and other keys that do not reach training (changes_training in settings.h), keys that have no effect on
// either side, and a larger max_steps or num_epochs. Whether max_steps on one side and num_epochs on the other mean a
// longer run depends on the data; such a pair is listed as training.max_steps, for the caller to decide.
std::vector<ConfigDifference> training_differences(const RunConfig& before, const RunConfig& now);

}  // namespace gemma_sft
