#include "model/cpu_kernels.h"

namespace gemma_sft {

CpuKernels cpu_kernels_baseline();

const CpuKernels& cpu_kernels() {
  static const CpuKernels chosen = cpu_kernels_baseline();
  return chosen;
}

}  // namespace gemma_sft
