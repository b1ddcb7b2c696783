// Rows of a CPU tensor, split over LibTorch's threads and handed to the kernels of model/cpu_kernels.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "model/cpu_kernels.h"

namespace gemma_sft {

// body(begin, end) over [0, rows) in ranges on LibTorch's threads. `row_work`: elements that a row touches; little work
// stays on the calling thread. Results must not depend on where the ranges are cut.
void for_rows(int64_t rows, int64_t row_work, const std::function<void(int64_t begin, int64_t end)>& body);

// True for tensors that the kernels can take: on the CPU, fp32 or bf16. Everything else goes through LibTorch's
// operators.
bool has_row_kernels(const at::Tensor& tensor);

// body(kernels, T{}) with T and the kernels for the tensor's dtype; requires has_row_kernels(tensor).
template <typename Body>
decltype(auto) with_row_kernels(const at::Tensor& tensor, const Body& body) {
  if (tensor.scalar_type() == at::kFloat) return body(cpu_kernels().wide, float{});
  return body(cpu_kernels().narrow, Bf16{});
}

template <typename T>
const T* rows_in(const at::Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <typename T>
T* rows_out(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace gemma_sft
