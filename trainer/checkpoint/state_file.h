// state.json and config.yaml of a checkpoint: TrainState and RunOrigin as text and back. No torch.
#pragma once

#include <filesystem>
#include <string>

#include "trainer/checkpoint/checkpoint_format.h"
#include "trainer/checkpoint/train_state.h"

namespace gemma_sft {

inline constexpr const char* kConfigFileName = "config.yaml";

struct SavedState {
  TrainState state;
  RunOrigin origin;
};

// state.json. The configuration is not in it: it is config.yaml, as to_yaml writes it. The same values give the same
// bytes, and every double reads back exactly.
std::string state_json(const TrainState& state, const RunOrigin& origin);

// Reads both files of a verified checkpoint. Throws Error(kCheckpoint) when they do not hold what they should.
SavedState read_saved_state(const std::filesystem::path& checkpoint);

}  // namespace gemma_sft
