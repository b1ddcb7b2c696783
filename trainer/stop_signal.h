// SIGTERM and SIGINT as a flag that every long loop polls; a second signal ends the process at once. No torch.
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

}  // namespace gemma_sft
