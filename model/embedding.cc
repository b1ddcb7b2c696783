#include "model/embedding.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "model/hand_written_backward.h"

namespace gemma_sft {

double embedding_scale(int64_t hidden_size, at::ScalarType dtype) {
  return at::scalar_tensor(std::sqrt(static_cast<double>(hidden_size)), at::TensorOptions().dtype(at::kDouble))
      .to(dtype)
      .item<double>();
}

at::Tensor embed(const at::Tensor& ids, const at::Tensor& weight, at::ScalarType dtype, std::optional<int64_t> pad_id) {
  const bool differentiable = wants_gradient({weight});
  at::NoGradGuard no_grad;
  at::Tensor output = weight.index_select(0, ids).to(dtype);
  if (!differentiable) return output;
  return with_backward(output, {}, [ids, weight, pad_id](const at::Tensor& gradient) -> std::vector<at::Tensor> {
    at::Tensor& total = weight.mutable_grad();
    if (!total.defined()) total = at::zeros_like(weight, at::MemoryFormat::Contiguous);
    at::Tensor rows = gradient.to(weight.scalar_type());
    if (pad_id) rows = rows.masked_fill(ids.eq(*pad_id).unsqueeze(1), 0);
    total.index_add_(0, ids, rows);
    return {};
  });
}

}  // namespace gemma_sft
