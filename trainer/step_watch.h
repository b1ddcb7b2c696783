// training.step_timeout: watches that each optimizer step ends in time. No torch.
//
// Whatever a step hangs in, the training thread is inside it and can end nothing: a thread of its own looks at the
// clock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace gemma_sft {

// What a step was at when its time was over.
using OnStall = std::function<void(const std::string& message)>;

class StepWatch {
 public:
  // Without a limit or without a function nothing is watched. `on_stall` is called at most once for each begin(), on
  // the watching thread; while it runs the training thread stands still at its next call below. It must not throw, and
  // is expected to end the process.
  StepWatch(std::optional<double> limit_seconds, OnStall on_stall);
  ~StepWatch();

  // From the training thread, cheap. `phase` and `rows` are what the message says.
  void begin(int64_t step, const std::string& phase);
  void enter(const std::string& phase, const std::string& rows = {});
  void end();

 private:
  struct State;
  std::unique_ptr<State> state_;  // nullptr: nothing is watched
};

}  // namespace gemma_sft
