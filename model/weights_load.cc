#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "configs/error.h"
#include "model/weights.h"

namespace gemma_sft {
namespace {

constexpr int64_t kBlockBytes =
    64 << 20;  // converted at once, so that loading needs no second copy of the largest tensor

at::ScalarType scalar_type(TensorDtype dtype) {
  switch (dtype) {
    case TensorDtype::kF32: return at::kFloat;
    case TensorDtype::kBF16: return at::kBFloat16;
    case TensorDtype::kF16: return at::kHalf;
    default: throw Error(ErrorKind::kInternal, "a weight of a dtype that is not a float");
  }
}

void copy_into(const at::Tensor& parameter, const WeightFiles::Tensor& source) {
  const at::ScalarType type = scalar_type(source.info->dtype);
  if (parameter.is_cpu() && parameter.scalar_type() == type && parameter.is_contiguous()) {
    source.read(parameter.data_ptr());
    return;
  }
  const int64_t rows = parameter.size(0);
  const int64_t row_bytes = static_cast<int64_t>(source.info->bytes()) / rows;
  const int64_t step = std::clamp<int64_t>(kBlockBytes / row_bytes, 1, rows);
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t count = std::min(step, rows - row);
    const at::Tensor target = parameter.narrow(0, row, count);
    const at::Tensor block = at::empty(target.sizes(), at::TensorOptions().dtype(type));
    source.read(static_cast<uint64_t>(row * row_bytes), static_cast<uint64_t>(count * row_bytes), block.data_ptr());
    target.copy_(block);  // fp32 to bf16 rounds to nearest even
  }
}

}  // namespace

Gemma load_gemma(const std::filesystem::path& folder, const GemmaOptions& options,
                 const std::function<void()>& before_tensor) {
  at::NoGradGuard no_grad;
  const GemmaConfig config = load_gemma_config(folder);
  const WeightFiles files(folder, config);
  Gemma model(config, options);
  for (const Parameter& parameter : model.base_parameters()) {
    if (before_tensor) before_tensor();
    copy_into(parameter.tensor.detach(), files.text(parameter.name));
  }
  return model;
}

}  // namespace gemma_sft
