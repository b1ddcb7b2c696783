#include "model/rms_norm.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

#include "model/cpu_rows.h"
#include "model/gpu/fused.h"
#include "model/hand_written_backward.h"

namespace gemma_sft {
namespace {

// The gradient of the weight is summed over blocks of so many rows, then over the blocks: the same sum for any thread
// count.
constexpr int64_t kRowsPerSum = 64;

struct Normed {
  at::Tensor output;   // as x
  at::Tensor inverse;  // fp32 [..., 1]: 1 / sqrt(mean(x^2) + eps)
};

struct Gradients {
  at::Tensor x;      // as x; undefined when not wanted
  at::Tensor scale;  // fp32 [width]; undefined when not wanted
};

Normed normalise_rows(const at::Tensor& x, const at::Tensor& scale, double eps) {
  const int64_t width = x.size(-1), rows = x.numel() / width;
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = 1;
  Normed normed{at::empty_like(x), at::empty(sizes, scale.options())};
  with_row_kernels(x, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    for_rows(rows, width, [&](int64_t begin, int64_t end) {
      kernels.rms_norm(rows_in<T>(x) + begin * width, rows_in<float>(scale), static_cast<float>(eps), end - begin,
                       width, rows_out<T>(normed.output) + begin * width, rows_out<float>(normed.inverse) + begin);
    });
  });
  return normed;
}

Gradients gradients_of_rows(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& inverse,
                            const at::Tensor& scale, bool x_wanted, bool scale_wanted) {
  const int64_t width = x.size(-1), rows = x.numel() / width;
  const int64_t sums = (rows + kRowsPerSum - 1) / kRowsPerSum;
  Gradients gradients;
  if (x_wanted) gradients.x = at::empty_like(x);
  const at::Tensor partial = scale_wanted ? at::zeros({sums, width}, scale.options()) : at::Tensor();
  with_row_kernels(x, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    for_rows(sums, kRowsPerSum * width, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i * kRowsPerSum, count = std::min(kRowsPerSum, rows - first);
        kernels.rms_norm_backward(rows_in<T>(gradient) + first * width, rows_in<T>(x) + first * width,
                                  rows_in<float>(inverse) + first, rows_in<float>(scale), count, width,
                                  x_wanted ? rows_out<T>(gradients.x) + first * width : nullptr,
                                  scale_wanted ? rows_out<float>(partial) + i * width : nullptr);
      }
    });
  });
  if (scale_wanted) gradients.scale = partial.sum(0);
  return gradients;
}

Normed normalise(const at::Tensor& x, const at::Tensor& scale, double eps) {
  if (has_row_kernels(x)) return normalise_rows(x, scale, eps);
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor inverse = at::mul(wide, wide).mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
  return {at::mul(wide, inverse).mul_(scale).to(x.scalar_type()), inverse};
}

Gradients gradients_of(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& inverse,
                       const at::Tensor& scale, bool x_wanted, bool scale_wanted) {
  if (has_row_kernels(x)) {
    return gradients_of_rows(gradient.contiguous(), x, inverse, scale, x_wanted, scale_wanted);
  }
  Gradients gradients;
  const at::Tensor wide = gradient.to(at::kFloat), unit = at::mul(x.to(at::kFloat), inverse);
  if (scale_wanted) gradients.scale = at::mul(wide, unit).reshape({-1, x.size(-1)}).sum(0);
  if (x_wanted) {
    at::Tensor unit_gradient = at::mul(wide, scale);
    const at::Tensor along = at::mul(unit_gradient, unit).mean(-1, /*keepdim=*/true);
    gradients.x = unit_gradient.sub_(at::mul(unit, along)).mul_(inverse).to(x.scalar_type());
  }
  return gradients;
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& given, const at::Tensor& weight, double eps) {
  if (takes_fused(FusedKernel::kNorm, given)) return fused_rms_norm(given, weight, eps);
  const bool x_wanted = wants_gradient({given}), weight_wanted = wants_gradient({weight});
  at::NoGradGuard no_grad;
  const at::Tensor x = given.detach().contiguous();
  const at::Tensor scale = weight.detach().to(at::kFloat).add(1.0);
  const Normed normed = normalise(x, scale, eps);
  if (!x_wanted && !weight_wanted) return normed.output;
  return with_backward(normed.output, {given, weight},
                       [x, inverse = normed.inverse, scale, storage = weight.scalar_type(), x_wanted,
                        weight_wanted](const at::Tensor& gradient) -> std::vector<at::Tensor> {
                         const Gradients gradients = gradients_of(gradient, x, inverse, scale, x_wanted, weight_wanted);
                         return {gradients.x, weight_wanted ? gradients.scale.to(storage) : at::Tensor()};
                       });
}

std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& change, const at::Tensor& weight,
                                               double eps) {
  if (takes_fused(FusedKernel::kNorm, x)) return fused_add_rms_norm(x, change, weight, eps);
  const at::Tensor sum = x.add(change);
  return {sum, rms_norm(sum, weight, eps)};
}

}  // namespace gemma_sft
