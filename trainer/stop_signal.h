// SIGTERM and SIGINT as a flag that every long loop polls; a second signal ends the process at once. No torch.
#pragma once

namespace gemma_sft {

// Installs the handlers and clears the flag; the first signal sets the flag, the second calls _exit(128 + n).
void install_stop_signals();
int stop_signal();  // 0, or the number of the signal that came first

}  // namespace gemma_sft
