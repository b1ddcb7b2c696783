#include "model/cpu_kernels.h"

namespace gemma_sft {

CpuKernels cpu_kernels_baseline();
CpuKernels cpu_kernels_avx2();
CpuKernels cpu_kernels_avx512();

const CpuKernels& cpu_kernels() {
  // The names of the psABI's levels: each stands for all instructions that its file may use (CMakeLists.txt).
  static const CpuKernels chosen = __builtin_cpu_supports("x86-64-v4")   ? cpu_kernels_avx512()
                                   : __builtin_cpu_supports("x86-64-v3") ? cpu_kernels_avx2()
                                                                         : cpu_kernels_baseline();
  return chosen;
}

}  // namespace gemma_sft
