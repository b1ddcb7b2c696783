#include "trainer/stop_signal.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace gemma_sft {
namespace {

std::atomic<int> first_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "the handler may only touch lock-free memory");

// Only async-signal-safe calls here: an atomic exchange and _exit.
extern "C" void note_signal(int number) {
  int none = 0;
  if (!first_signal.compare_exchange_strong(none, number)) _exit(128 + number);
}

}  // namespace

void install_stop_signals() {
  first_signal = 0;
  struct sigaction action = {};
  action.sa_handler = note_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (int number : {SIGTERM, SIGINT}) sigaction(number, &action, nullptr);
}

int stop_signal() { return first_signal; }

}  // namespace gemma_sft
