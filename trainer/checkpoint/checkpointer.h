// Saves and restores a run: weights, moments, random state and TrainState as one checkpoint folder (FORMAT.md).
//
// What is saved are the trained parameters in their storage dtype: all of them, or with LoRA the adapter only. Every
// write goes through FileSystem, so that a failing disk is Error(kIo) and never a checkpoint that only looks complete.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>

#include "data/files/file_system.h"
#include "model/gemma.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/checkpoint/train_state.h"
#include "trainer/optimizer.h"

namespace gemma_sft {

// Refers to everything it is given. One thread.
class Checkpointer {
 public:
  Checkpointer(CheckpointFolders& folders, const RunOrigin& origin, Gemma& model, Optimizer& optimizer,
               FileSystem& files);

  // Returns when checkpoint-<state.step> is on disk; gives its folder. Old ones are still there: see rotate.
  std::filesystem::path save(const TrainState& state);
  void rotate(const TrainState& state, bool keep_best);

  // From a verified checkpoint into model, optimizer and the random number generators. Throws Error(kCheckpoint) when a
  // tensor is missing, extra or of another shape or dtype.
  void restore(const std::filesystem::path& checkpoint);

 private:
  CheckpointFolders& folders_;
  const RunOrigin& origin_;
  Gemma& model_;
  Optimizer& optimizer_;
  FileSystem& files_;
};

// The trained parameters of a verified checkpoint into a model of the same shape.
void load_trained_weights(Gemma& model, const std::filesystem::path& checkpoint);

}  // namespace gemma_sft
