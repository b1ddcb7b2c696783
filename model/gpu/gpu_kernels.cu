// The kernels of model/gpu/gpu_kernels.h for CUDA. Built by the pinned nvcc for every architecture of
// CMAKE_CUDA_ARCHITECTURES; no torch header is seen here.
#include "model/gpu/gpu_platform_cuda.h"
//
#include "model/gpu/gpu_kernels_body.h"

namespace gemma_sft {

const GpuKernels* find_cuda_kernels() {
  static constexpr GpuKernels kernels = make_table("cuda");
  return &kernels;
}

}  // namespace gemma_sft
