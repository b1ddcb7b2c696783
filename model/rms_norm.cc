#include "model/rms_norm.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sum.h>

#include "model/hand_written_backward.h"

namespace gemma_sft {
namespace {

struct Normed {
  at::Tensor x;        // fp32
  at::Tensor inverse;  // fp32 [..., 1]: 1 / sqrt(mean(x^2) + eps)
};

Normed normalise(const at::Tensor& x, double eps) {
  at::Tensor wide = x.to(at::kFloat);
  at::Tensor inverse = at::mul(wide, wide).mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
  return {wide, inverse};
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const bool differentiable = wants_gradient({x, weight});
  at::NoGradGuard no_grad;
  const at::Tensor scale = weight.to(at::kFloat).add(1.0);
  const Normed normed = normalise(x, eps);
  at::Tensor output = at::mul(normed.x, normed.inverse).mul_(scale).to(x.scalar_type());
  if (!differentiable) return output;

  const bool x_wanted = x.requires_grad(), weight_wanted = weight.requires_grad();
  return with_backward(output, {x, weight},
                       [x = x.detach(), inverse = normed.inverse, scale, weight_dtype = weight.scalar_type(), x_wanted,
                        weight_wanted](const at::Tensor& output_gradient) -> std::vector<at::Tensor> {
                         const at::Tensor gradient = output_gradient.to(at::kFloat);
                         const at::Tensor unit = at::mul(x.to(at::kFloat), inverse);
                         at::Tensor x_gradient, weight_gradient;
                         if (weight_wanted) {
                           weight_gradient = at::mul(gradient, unit).reshape({-1, x.size(-1)}).sum(0).to(weight_dtype);
                         }
                         if (x_wanted) {
                           at::Tensor unit_gradient = at::mul(gradient, scale);
                           const at::Tensor along = at::mul(unit_gradient, unit).mean(-1, /*keepdim=*/true);
                           x_gradient = unit_gradient.sub_(at::mul(unit, along)).mul_(inverse).to(x.scalar_type());
                         }
                         return {x_gradient, weight_gradient};
                       });
}

}  // namespace gemma_sft
