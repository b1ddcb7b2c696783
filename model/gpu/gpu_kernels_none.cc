#include "model/gpu/gpu_kernels.h"

namespace gemma_sft {

const GpuKernels* find_cuda_kernels() { return nullptr; }

}  // namespace gemma_sft
