// May a run be continued from a checkpoint? Only with the data, tokenizer, model and configuration it was made with. No
// torch.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "trainer/checkpoint/train_state.h"
#include "trainer/run_training.h"

namespace gemma_sft {

struct OriginChange {
  AllowedChange kind;
  std::string what;  // "training.learning_rate was 2e-05 and is 1e-05"
};

// Everything that would give other weights. Files count by content, wherever they are now; output.*, evaluation.* and a
// longer run are no change.
std::vector<OriginChange> find_changes(const RunOrigin& before, const RunOrigin& now);

// Throws Error(kCheckpoint) that names every change that is not allowed, and the flag that allows it; gives one
// sentence for each change that is, and for what only ends bit-exactness: device, thread count, versions. Under
// training.deterministic: true these count as changes of the configuration. `place` is that of the run now.
std::vector<std::string> require_same_origin(const RunOrigin& before, const RunOrigin& now,
                                             const std::set<AllowedChange>& allowed, const std::string& checkpoint,
                                             const RunPlace& place);

}  // namespace gemma_sft
