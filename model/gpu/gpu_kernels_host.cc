// The kernels of model/gpu/gpu_kernels.h on the CPU, one lane after the other.
#include "model/gpu/gpu_platform_host.h"
//
#include "model/gpu/gpu_kernels_body.h"

namespace gemma_sft {

const GpuKernels& host_gpu_kernels() {
  static constexpr GpuKernels kernels = make_table("host");
  return kernels;
}

}  // namespace gemma_sft
