// The checkpoints of a run as it goes: saved at once or in the background (output.background_save), announced, and old
// ones deleted.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "trainer/background_saver.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/checkpoint/checkpointer.h"
#include "trainer/run/run_observer.h"

namespace gemma_sft {

struct RunSaverOptions {
  bool in_background = false;
  bool keeps_best = false;              // evaluation.keep_best
  std::function<int64_t()> free_bytes;  // of the host's memory; asked when a copy is to be made in it
};

// Refers to what it is given. Called from the training thread. Failures are Error(kIo) and Error(kOutOfMemory); those
// of a save in the background come from the next call that finds it ended.
class RunSaver {
 public:
  RunSaver(CheckpointFolders& folders, const RunOrigin& origin, FileSystem& files, RunObserver& observer,
           RunSaverOptions options);

  // First waits for the save before this one. `goes_on`: training does, so that a save in the background pays.
  void save(const TrainState& state, const RunTensors& tensors, bool goes_on);
  void collect();  // announces a save that has ended since
  void wait();     // for the save under way, if any
  // The run ends with an error of its own: the save under way is finished, and its failure a warning.
  void wait_and_warn();

  // What a crash between a save and its rotation left to do.
  void rotate(const TrainState& state);

 private:
  bool begin(const TrainState& state, const RunTensors& tensors);
  void announce(const std::optional<CheckpointRecord>& saved);
  std::optional<int64_t> best_step(const TrainState& state) const;

  CheckpointFolders& folders_;
  RunObserver& observer_;
  RunSaverOptions options_;
  Checkpointer checkpointer_;
  BackgroundSaver background_;
  std::optional<int64_t> best_;  // of the state being saved: a later best one may not be on disk yet
  bool warned_ = false;          // that there is no room for a copy
};

}  // namespace gemma_sft
