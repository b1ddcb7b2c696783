// Checkpoints without tensors, saved as Checkpointer saves them, and what a run folder then holds. No torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "data/files/file_system.h"
#include "data/files/sha256.h"
#include "trainer/checkpoint/checkpoint_folders.h"

namespace gemma_sft {

// One checkpoint with one file of content.
inline void save_checkpoint(CheckpointFolders& folders, int64_t step, FileSystem& files,
                            const std::string& content = "weights") {
  const std::filesystem::path temporary = folders.begin(step, content.size());
  const auto file = files.create(temporary / "model.safetensors");
  file->append(content);
  file->sync();
  file->close();
  folders.publish(temporary, step, {{"model.safetensors", {content.size(), sha256_hex(content)}}});
}

// The steps of the checkpoints that verify, in order.
inline std::vector<int64_t> complete_steps(const std::filesystem::path& folder, const std::string& run_id = "r") {
  std::vector<int64_t> steps;
  for (const CheckpointVerdict& verdict : find_checkpoints(folder, run_id)) {
    if (verdict.manifest) steps.push_back(verdict.manifest->step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

}  // namespace gemma_sft
