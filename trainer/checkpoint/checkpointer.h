// Saves and restores the tensors and the state of a run as one checkpoint folder (FORMAT.md). Knows tensors by name and
// nothing of models or optimizers. Every write goes through FileSystem, so that a failing disk is Error(kIo) and never
// a checkpoint that only looks complete.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/files/file_system.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/checkpoint/train_state.h"

namespace gemma_sft {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

// The tensors of a run, on any device. Restoring writes into them: they share storage with the live ones.
struct RunTensors {
  std::vector<NamedTensor> weights;  // what is trained, in its storage dtype
  std::vector<NamedTensor> moments;  // of the optimizer
  std::vector<NamedTensor> random;   // states of random number generators, bytes
};

// Refers to what it is given. One thread.
class Checkpointer {
 public:
  Checkpointer(CheckpointFolders& folders, const RunOrigin& origin, FileSystem& files);

  // Returns when checkpoint-<state.step> is on disk; gives its folder. Old ones are still there: see
  // CheckpointFolders::rotate.
  std::filesystem::path save(const TrainState& state, const RunTensors& tensors);

 private:
  CheckpointFolders& folders_;
  const RunOrigin& origin_;
  FileSystem& files_;
};

// From a verified checkpoint into `tensors`. A random state that the checkpoint lacks (saved on a CPU, continued on a
// GPU) is dropped from `tensors.random`. Throws Error(kCheckpoint) when another tensor is missing, extra or of another
// shape or dtype.
void read_checkpoint(const std::filesystem::path& checkpoint, RunTensors& tensors);
// The weights alone.
void read_checkpoint_weights(const std::filesystem::path& checkpoint, const std::vector<NamedTensor>& weights);

}  // namespace gemma_sft
