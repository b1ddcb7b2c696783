// Where LibTorch's tensors on the CPU live: large blocks are kept for the next tensor of their size and lie in huge
// pages, where the system has them. A training step asks for the same blocks each time; given back to the system they
// would come back as pages to be faulted in and cleared, a tenth of a step's time and more (tests/benchmarks/results).
#pragma once

#include <cstdint>

namespace gemma_sft {

// From here on for all CPU tensors of this process. Call it once, before the first tensor.
void keep_large_blocks();

struct KeptMemory {
  int64_t in_use = 0;       // bytes of large blocks that tensors have
  int64_t kept = 0;         // bytes of large blocks that wait for the next tensor
  int64_t most_in_use = 0;  // so far
};
KeptMemory kept_memory();

}  // namespace gemma_sft
