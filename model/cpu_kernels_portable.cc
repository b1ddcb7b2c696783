#include "model/cpu_kernels.h"

namespace gemma_sft {

CpuKernels cpu_kernels_baseline();

const ProductHabits& product_habits() {
  static const ProductHabits none;
  return none;
}

const CpuKernels* find_cpu_kernels(int index) {
  static const CpuKernels only = cpu_kernels_baseline();
  return index == 0 ? &only : nullptr;
}

const CpuKernels& cpu_kernels() { return *find_cpu_kernels(0); }

}  // namespace gemma_sft
