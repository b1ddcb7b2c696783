#include <cstdlib>

#include "tests/model/gpu/gpu_memory.h"

namespace gemma_sft {

const GpuMemory& host_memory() {
  static constexpr GpuMemory memory = {std::malloc, std::free,
                                       [](void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }};
  return memory;
}

}  // namespace gemma_sft
