// `run.log` in the run folder: what happened and when, one line each, appended across restarts. spdlog stays in the
// .cc.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "data/files/file_system.h"
#include "trainer/run/run_observer.h"

namespace gemma_sft {

// The file is opened by the first line: a process that is refused the run folder leaves the owner's log alone. One
// thread. A log that cannot be written ends the run with Error(kIo), like any other file of it; only the error that
// ends the run already is never replaced by that.
class RunLog : public RunObserver {
 public:
  RunLog(const std::filesystem::path& folder, FileSystem& files);
  ~RunLog() override;
  void on_start(int64_t first_step, int64_t total_steps) override;
  void on_step(const StepRecord& record) override;  // the first, the last, and one every ten seconds
  void on_eval(const EvalRecord& record) override;
  void on_checkpoint(const CheckpointRecord& record) override;
  void on_note(const std::string& message) override;
  void on_warning(const std::string& message) override;
  void on_error(const std::string& message) noexcept;  // what ends the run; nothing where no line came before
  void on_finish() override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gemma_sft
