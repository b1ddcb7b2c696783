#include "model/cpu_kernels.h"

namespace gemma_sft {

CpuKernels cpu_kernels_baseline();
CpuKernels cpu_kernels_avx2();
CpuKernels cpu_kernels_avx512();

namespace {

// Exactly the instructions that CMakeLists.txt lets each source use.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

}  // namespace

const CpuKernels* find_cpu_kernels(int index) {
  static const CpuKernels all[] = {cpu_kernels_baseline(), cpu_kernels_avx2(), cpu_kernels_avx512()};
  static const int usable = has_avx512() ? 3 : has_avx2() ? 2 : 1;
  return index >= 0 && index < usable ? &all[index] : nullptr;
}

const CpuKernels& cpu_kernels() {
  static const CpuKernels* const best = [] {
    int last = 0;
    while (find_cpu_kernels(last + 1) != nullptr) ++last;
    return find_cpu_kernels(last);
  }();
  return *best;
}

}  // namespace gemma_sft
