#include "tests/model/gpu/gpu_memory.h"

namespace gemma_sft {

const GpuMemory* find_gpu_memory() { return nullptr; }

}  // namespace gemma_sft
