// Matrix products by the fastest routine that LibTorch has for the device and dtype.
#pragma once

#include <ATen/core/Tensor.h>

namespace gemma_sft {

// a [m, k] @ b [k, n] -> [m, n], contiguous; no autograd. Either may be a transposed view.
//
// fp32 on the CPU goes to oneDNN, where LibTorch has it: MKL, which at::mm calls, has no AVX-512 path for processors
// that are not Intel's (measured in tests/benchmarks: 105 against 230 GFLOP/s on one core of an AMD EPYC with AVX-512).
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

// The same for stacks: a [n, m, k] @ b [n, k, p] -> [n, m, p].
at::Tensor batched_product(const at::Tensor& a, const at::Tensor& b);

}  // namespace gemma_sft
