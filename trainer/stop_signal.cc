#include "trainer/stop_signal.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <span>
#include <thread>

namespace gemma_sft {
namespace {

std::atomic<int> first_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "the handler may only touch lock-free memory");

// Only async-signal-safe calls here: an atomic exchange and _exit.
extern "C" void note_signal(int number) {
  int none = 0;
  if (!first_signal.compare_exchange_strong(none, number)) _exit(128 + number);
}

// Decided at the first call, before a handler is there. An array, which nothing destroys: the waiting thread reads it
// while the program ends.
std::span<const int> stop_signals() {
  static constexpr std::array<int, 4> kNumbers = {SIGTERM, SIGINT, SIGUSR1, SIGHUP};
  static const size_t count = [] {
    struct sigaction before = {};
    const bool hang_up_stops = sigaction(SIGHUP, nullptr, &before) == 0 && before.sa_handler != SIG_IGN;
    return hang_up_stops ? kNumbers.size() : kNumbers.size() - 1;
  }();
  return std::span(kNumbers).first(count);
}

sigset_t stop_signal_set() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : stop_signals()) sigaddset(&set, number);
  return set;
}

void wait_for_signals() {
  const sigset_t set = stop_signal_set();
  for (int number = 0;;) {
    if (sigwait(&set, &number) == 0) note_signal(number);
  }
}

}  // namespace

void install_stop_signals() {
  first_signal = 0;
  // For a thread that was there before this call; all others have the signals blocked.
  struct sigaction action = {};
  action.sa_handler = note_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (const int number : stop_signals()) sigaction(number, &action, nullptr);
  const sigset_t set = stop_signal_set();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);  // threads started from here on inherit it
  static const bool waiting = [] {
    std::thread(wait_for_signals).detach();
    return true;
  }();
  static_cast<void>(waiting);
}

int stop_signal() { return first_signal; }

void throw_if_stopped() {
  if (stop_signal() != 0) throw StopRequested{};
}

}  // namespace gemma_sft
