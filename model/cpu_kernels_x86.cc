#include <cpuid.h>

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

// Leaf 7 of cpuid: AMX-BF16 is bit 22 of edx in subleaf 0, AVX512_BF16 bit 5 of eax in subleaf 1.
bool has_amx_bf16() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && ((edx >> 22) & 1) != 0;
}
bool has_avx512_bf16() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && ((eax >> 5) & 1) != 0;
}

ProductHabits habits() {
  __builtin_cpu_init();
  const bool intel = __builtin_cpu_is("intel");
  // Without AMX an Intel core does as many bf16 as fp32 multiplications in a cycle, and oneDNN's bf16 products reach
  // half of MKL's fp32 ones (150 against 300 GFLOP/s on two cores); AMD's cores do twice as many. A core without either
  // set would emulate bf16.
  return {.mkl_for_fp32 = intel, .bf16_through_fp32 = !has_amx_bf16() && (intel || !has_avx512_bf16())};
}

}  // namespace

const ProductHabits& product_habits() {
  static const ProductHabits found = habits();
  return found;
}

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
