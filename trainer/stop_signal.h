// SIGTERM, SIGINT, SIGUSR1 and SIGHUP as a flag that every long loop polls; a second signal ends the process at once.
// No torch.
//
// SIGUSR1 is what batch systems send ahead of their time limit, SIGHUP comes when a terminal is closed; a process that
// was started with SIGHUP ignored (nohup) goes on ignoring it.
//
// A thread of its own waits for them, and no other thread is ever interrupted: kernels that oneDNN makes at run time
// use the stack pointer as a plain register, and a handler that runs on a computing thread then writes its frame into
// the heap.
#pragma once

namespace gemma_sft {

// Call it before other threads start. The first signal sets the flag, the second calls _exit(128 + n). Called again it
// clears the flag. Signals sent to one thread (raise) are not seen: send them to the process (kill).
void install_stop_signals();
int stop_signal();  // 0, or the number of the signal that came first

// For work that is below a function that could return: thrown, and caught where the command ends.
struct StopRequested {};
void throw_if_stopped();

}  // namespace gemma_sft
