#include "model/rotary_embedding.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/sub.h>

#include <vector>

#include "model/cpu_rows.h"
#include "model/gpu/fused.h"
#include "model/hand_written_backward.h"
#include "model/rms_norm.h"

namespace gemma_sft {
namespace {

// direction 1 turns, -1 turns back. Each product is rounded to the dtype before the sum, as transformers does.
at::Tensor turn(const at::Tensor& x, const RotaryTable& table, double direction) {
  const int64_t half = x.size(-1) / 2;
  at::Tensor output = at::empty_like(x, at::MemoryFormat::Contiguous);
  if (has_row_kernels(x)) {
    const at::Tensor in = x.contiguous();
    const int64_t heads = x.size(1), width = heads * 2 * half;
    with_row_kernels(x, [&](const auto& kernels, auto kind) {
      using T = decltype(kind);
      for_rows(x.size(0), width, [&](int64_t begin, int64_t end) {
        kernels.rotate(rows_in<T>(in) + begin * width, rows_in<T>(table.cos) + begin * half,
                       rows_in<T>(table.sin) + begin * half, static_cast<float>(direction), end - begin, heads, half,
                       rows_out<T>(output) + begin * width);
      });
    });
    return output;
  }
  const at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  const at::Tensor sin = at::mul(table.sin, direction);
  at::Tensor output_first = output.narrow(-1, 0, half), output_second = output.narrow(-1, half, half);
  at::mul_out(output_first, first, table.cos).sub_(at::mul(second, sin));
  at::mul_out(output_second, second, table.cos).add_(at::mul(first, sin));
  return output;
}

}  // namespace

RotaryTable rotary_table(const at::Tensor& positions, int64_t head_dim, double theta, double linear_factor,
                         at::ScalarType dtype) {
  at::NoGradGuard no_grad;
  const at::Tensor exponents =
      at::arange(0, head_dim, 2, positions.options().dtype(at::kFloat)).div_(static_cast<double>(head_dim));
  const at::Tensor frequencies = at::pow(theta, exponents).reciprocal_().div_(linear_factor);
  const at::Tensor angles = at::outer(positions.to(at::kFloat), frequencies).unsqueeze(1);
  return {angles.cos().to(dtype), angles.sin().to(dtype)};
}

at::Tensor norm_and_rotate(const at::Tensor& x, const at::Tensor& weight, double eps, const RotaryTable& table) {
  if (takes_fused(FusedKernel::kHead, x)) return fused_norm_rotate(x, weight, eps, table.cos, table.sin);
  return rotate(weight.defined() ? rms_norm(x, weight, eps) : x, table);
}

at::Tensor rotate(const at::Tensor& x, const RotaryTable& table) {
  const bool differentiable = wants_gradient({x});
  at::NoGradGuard no_grad;
  at::Tensor output = turn(x.detach(), table, 1);
  if (!differentiable) return output;
  return with_backward(output, {x}, [table](const at::Tensor& gradient) -> std::vector<at::Tensor> {
    return {turn(gradient, table, -1)};
  });
}

}  // namespace gemma_sft
