// Sends a stop signal to this process, as `kill` would, and waits until it was noticed.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <thread>

#include "trainer/stop_signal.h"

namespace gemma_sft {

inline void send_stop_signal(int number) {
  kill(getpid(), number);
  while (stop_signal() == 0) std::this_thread::yield();
}

}  // namespace gemma_sft
