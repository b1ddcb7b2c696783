#include "trainer/run_saver.h"

#include <exception>
#include <string>
#include <utility>

#include "trainer/stopwatch.h"
#include "trainer/training_failure.h"

namespace gemma_sft {

RunSaver::RunSaver(CheckpointFolders& folders, const RunOrigin& origin, FileSystem& files, RunObserver& observer,
                   RunSaverOptions options)
    : folders_(folders),
      observer_(observer),
      options_(std::move(options)),
      checkpointer_(folders, origin, files),
      background_(checkpointer_, options_.free_bytes) {}

void RunSaver::save(const TrainState& state, const RunTensors& tensors, bool goes_on) {
  wait();
  with_memory_errors_explained({"saving the checkpoint", state.step}, [&] {
    best_ = best_step(state);
    if (options_.in_background && goes_on && begin(state, tensors)) return;
    const Stopwatch watch;
    const std::string folder = checkpointer_.save(state, tensors).string();
    const double seconds = watch.seconds();
    announce(CheckpointRecord{state.step, folder, seconds, seconds});
  });
}

bool RunSaver::begin(const TrainState& state, const RunTensors& tensors) {
  if (background_.begin(state, tensors)) return true;
  if (!std::exchange(warned_, true)) {
    observer_.on_warning(
        "output.background_save: no memory for a copy of weights and moments; training waits for each checkpoint");
  }
  return false;
}

void RunSaver::collect() {
  if (!background_.step()) return;
  with_memory_errors_explained({"saving the checkpoint", *background_.step()},
                               [&] { announce(background_.collect()); });
}

void RunSaver::wait() {
  if (!background_.step()) return;
  with_memory_errors_explained({"saving the checkpoint", *background_.step()}, [&] { announce(background_.wait()); });
}

void RunSaver::wait_and_warn() {
  try {
    wait();
  } catch (const std::exception& error) {
    try {
      observer_.on_warning(error.what());
    } catch (const std::exception&) {
      // A full disk takes the log too; the error that ends the run is not to be replaced by that.
    }
  }
}

void RunSaver::announce(const std::optional<CheckpointRecord>& saved) {
  if (!saved) return;
  observer_.on_checkpoint(*saved);
  folders_.rotate(saved->step, best_);
}

void RunSaver::rotate(const TrainState& state) { folders_.rotate(state.step, best_step(state)); }

std::optional<int64_t> RunSaver::best_step(const TrainState& state) const {
  return options_.keeps_best && state.best ? std::optional(state.best->step) : std::nullopt;
}

}  // namespace gemma_sft
