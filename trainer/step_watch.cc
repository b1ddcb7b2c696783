#include "trainer/step_watch.h"

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace gemma_sft {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

struct StepWatch::State {
  double limit_seconds = 0;
  OnStall on_stall;

  std::mutex mutex;
  std::condition_variable_any changed;
  uint64_t turn = 0;  // counts begin()
  bool running = false;
  int64_t step = 0;
  std::string phase, rows;
  const std::string plain_message = "a step was not finished in the time of training.step_timeout";
  Clock::time_point step_start, phase_start;
  std::jthread thread;  // the last member: it ends before what it uses

  void watch(const std::stop_token& stop) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    std::unique_lock lock(mutex);
    const auto limit = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(limit_seconds));
    uint64_t told = 0;
    while (changed.wait(lock, stop, [&] { return running && turn != told; })) {
      const uint64_t watched = turn;
      if (ends_in_time(lock, stop, limit) || stop.stop_requested()) continue;
      told = watched;
      tell();
    }
  }

  // A process that is stopped itself (Ctrl-Z, a paused container) stalls nowhere: of each part of the wait no more is
  // counted than it could have lasted.
  bool ends_in_time(std::unique_lock<std::mutex>& lock, const std::stop_token& stop, Clock::duration limit) {
    constexpr Clock::duration kPart = std::chrono::milliseconds(250);
    const uint64_t watched = turn;
    for (Clock::duration counted{}; counted < limit;) {
      const Clock::time_point start = Clock::now();
      const Clock::duration part = std::min(kPart, limit - counted);
      if (changed.wait_for(lock, stop, part, [&] { return !running || turn != watched; })) return true;
      if (stop.stop_requested()) return false;
      counted += std::min(Clock::now() - start, 2 * part);
    }
    return false;
  }

  // What leaves a thread ends the process by SIGABRT, so that a lack of memory for the words must not.
  void tell() const {
    std::string words;
    try {
      words = message();
    } catch (const std::exception&) {
      return on_stall(plain_message);
    }
    on_stall(words);
  }

  std::string message() const {
    return fmt::format(
        "step {}: not finished after {:.1f} s (training.step_timeout: {}); for {:.1f} s it has been at: {}.{} "
        "Checkpoints saved so far are intact, and the same command continues from the newest",
        step, seconds_since(step_start), limit_seconds, seconds_since(phase_start), phase,
        rows.empty() ? "" : " Its rows: " + rows + ".");
  }
};

StepWatch::StepWatch(std::optional<double> limit_seconds, OnStall on_stall) {
  if (!limit_seconds || !on_stall) return;
  state_ = std::make_unique<State>();
  state_->limit_seconds = *limit_seconds;
  state_->on_stall = std::move(on_stall);
  state_->thread = std::jthread([state = state_.get()](const std::stop_token& stop) { state->watch(stop); });
}

StepWatch::~StepWatch() = default;

void StepWatch::begin(int64_t step, const std::string& phase) {
  if (!state_) return;
  {
    const std::lock_guard lock(state_->mutex);
    ++state_->turn;
    state_->running = true;
    state_->step = step;
    state_->phase = phase;
    state_->rows.clear();
    state_->step_start = state_->phase_start = Clock::now();
  }
  state_->changed.notify_all();
}

void StepWatch::enter(const std::string& phase, const std::string& rows) {
  if (!state_) return;
  const std::lock_guard lock(state_->mutex);
  state_->phase = phase;
  state_->phase_start = Clock::now();
  if (!rows.empty()) state_->rows = rows;
}

void StepWatch::end() {
  if (!state_) return;
  {
    const std::lock_guard lock(state_->mutex);
    state_->running = false;
  }
  state_->changed.notify_all();
}

}  // namespace gemma_sft
