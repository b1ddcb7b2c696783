// Memory as Linux counts it: of this process, and what is left.
#pragma once

#include <cstdint>

namespace gemma_sft {

int64_t peak_resident_bytes();  // VmHWM; 0 where /proc does not tell

// Memory that processes may still take, as Linux estimates it (MemAvailable); 0 where /proc does not tell.
int64_t available_memory_bytes();

}  // namespace gemma_sft
