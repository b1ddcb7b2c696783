#include "model/cpu_rows.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace gemma_sft {
namespace {

// A range of fewer elements is not worth another thread's start.
constexpr int64_t kLeastWork = 16384;

}  // namespace

void for_rows(int64_t rows, int64_t row_work, const std::function<void(int64_t begin, int64_t end)>& body) {
  const int64_t grain = std::max<int64_t>(1, kLeastWork / std::max<int64_t>(1, row_work));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) { body(begin, end); });
}

bool has_row_kernels(const at::Tensor& tensor) {
  return tensor.is_cpu() && (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16);
}

}  // namespace gemma_sft
