// Saves a checkpoint while training goes on (output.background_save): the tensors are copied to the host's memory,
// which is what training waits for, and a second thread writes the copy. What is on disk is the same either way, to the
// byte.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "trainer/checkpoint/checkpointer.h"
#include "trainer/run/run_observer.h"

namespace gemma_sft {

// One save at a time. Called from the training thread; while a save is under way the checkpointer, its
// CheckpointFolders included, belongs to the saver's thread. The copy's memory is kept for the next save, pinned where
// the tensors are on a GPU.
class BackgroundSaver {
 public:
  // `free_bytes`: memory of the host that may still be taken. Refers to `checkpointer`.
  BackgroundSaver(Checkpointer& checkpointer, std::function<int64_t()> free_bytes);
  ~BackgroundSaver();  // waits; the failure of a save that nobody collected is lost

  // Returns when the copy is made and the tensors may change. False: there is no room for a copy, or no thread can be
  // had, and nothing has begun. A save that was begun before has to be collected first.
  bool begin(const TrainState& state, const RunTensors& tensors);

  // The step whose save was begun and not collected yet.
  std::optional<int64_t> step() const;

  // A save that has ended since: gives it once, or throws what it failed with. Nothing while it is under way.
  std::optional<CheckpointRecord> collect();
  // The same, and waits for it. Nothing only where none was begun.
  std::optional<CheckpointRecord> wait();

 private:
  struct Save;

  bool has_room_for(const RunTensors& tensors);

  Checkpointer& checkpointer_;
  std::function<int64_t()> free_bytes_;
  RunTensors copy_;
  std::unique_ptr<Save> save_;  // nullptr: none was begun
};

}  // namespace gemma_sft
