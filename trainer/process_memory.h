// Memory of this process as Linux counts it.
#pragma once

#include <cstdint>

namespace gemma_sft {

int64_t peak_resident_bytes();  // VmHWM; 0 where /proc does not tell

}  // namespace gemma_sft
