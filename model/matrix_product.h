// Matrix products by the fastest routine that LibTorch has for the device and dtype.
#pragma once

#include <ATen/core/Tensor.h>

namespace gemma_sft {

// a [m, k] @ b [k, n] -> [m, n], contiguous; no autograd. Either may be a transposed view.
//
// fp32 on the CPU goes to oneDNN where LibTorch has it and the processor is not Intel's: MKL, which at::mm calls, has
// no AVX-512 path for others (measured in tests/benchmarks: 105 against 230 GFLOP/s on one core of an AMD EPYC with
// AVX-512). bf16 goes through fp32 where that is faster (ProductHabits in cpu_kernels.h).
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

// out [m, n] = a @ b, or out + a @ b, of any floating dtype, without another matrix of its size where the routine
// allows.
enum class Into { kReplace, kAdd };
void product_into(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, Into into);

// product() of bf16 matrices through fp32, in blocks: sums in fp32, rounded once. For tests; product() calls it.
at::Tensor product_through_fp32(const at::Tensor& a, const at::Tensor& b);

// The same for stacks: a [n, m, k] @ b [n, k, p] -> [n, m, p].
at::Tensor batched_product(const at::Tensor& a, const at::Tensor& b);

}  // namespace gemma_sft
