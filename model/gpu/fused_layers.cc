#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/DeviceGuard.h>

#include "model/embedding.h"
#include "model/gpu/fused.h"
#include "model/hand_written_backward.h"

namespace gemma_sft {
namespace {

template <typename T>
const T* in(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}
template <typename T>
T* out(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr;
}
Values values_of(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.const_data_ptr(), tensor.scalar_type() == at::kBFloat16};
}

at::Tensor floats(at::IntArrayRef sizes, const at::Tensor& beside) {
  return at::empty(sizes, beside.options().dtype(at::kFloat));
}

// The weight of a norm as the kernels take it.
at::Tensor plain_weight(const at::Tensor& weight) {
  if (!weight.defined()) return weight;
  const bool known = weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kBFloat16;
  return (known ? weight.detach() : weight.detach().to(at::kFloat)).contiguous();
}

struct Normed {
  at::Tensor sum, output, inverse;
};

Normed norm_forward(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps) {
  const c10::DeviceGuard guard(x.device());
  const int64_t width = x.size(-1), rows = x.numel() / width;
  Normed normed{residual.defined() ? at::empty_like(x) : at::Tensor(), at::empty_like(x), floats({rows}, x)};
  with_fused(x, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    kernels.norm({.x = in<T>(x),
                  .residual = in<T>(residual),
                  .weight = values_of(weight),
                  .epsilon = static_cast<float>(eps),
                  .rows = rows,
                  .width = width,
                  .sum = out<T>(normed.sum),
                  .out = out<T>(normed.output),
                  .inverse = out<float>(normed.inverse)},
                 fused_stream(x));
  });
  return normed;
}

struct Gradients {
  at::Tensor x, weight;  // the weight's in fp32; undefined where not wanted
};

Gradients norm_backward(const at::Tensor& gradient, const at::Tensor& sum_gradient, const at::Tensor& x,
                        const at::Tensor& inverse, const at::Tensor& weight, bool x_wanted, bool weight_wanted) {
  const c10::DeviceGuard guard(x.device());
  const int64_t width = x.size(-1), rows = x.numel() / width;
  Gradients gradients;
  at::Tensor parts;
  if (x_wanted) gradients.x = at::empty_like(x);
  if (weight_wanted) {
    parts = floats({fused_kernels(x).parts(rows, width), width}, x);
    gradients.weight = floats({width}, x);
  }
  with_fused(x, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    kernels.norm_backward({.gradient = in<T>(gradient),
                           .sum_gradient = in<T>(sum_gradient),
                           .x = in<T>(x),
                           .inverse = in<float>(inverse),
                           .weight = values_of(weight),
                           .rows = rows,
                           .width = width,
                           .x_gradient = out<T>(gradients.x),
                           .weight_parts = out<float>(parts),
                           .weight_gradient = out<float>(gradients.weight)},
                          fused_stream(x));
  });
  return gradients;
}

at::Tensor head_forward(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& cos,
                        const at::Tensor& sin, const at::Tensor& inverse) {
  const c10::DeviceGuard guard(x.device());
  at::Tensor output = at::empty_like(x);
  with_fused(x, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    kernels.head({.x = in<T>(x),
                  .weight = values_of(weight),
                  .epsilon = static_cast<float>(eps),
                  .cos = in<T>(cos),
                  .sin = in<T>(sin),
                  .tokens = x.size(0),
                  .heads = x.size(1),
                  .half = x.size(2) / 2,
                  .out = out<T>(output),
                  .inverse = out<float>(inverse)},
                 fused_stream(x));
  });
  return output;
}

Gradients head_backward(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& inverse,
                        const at::Tensor& weight, const at::Tensor& cos, const at::Tensor& sin, bool weight_wanted) {
  const c10::DeviceGuard guard(gradient.device());
  Gradients gradients{at::empty_like(gradient), {}};
  at::Tensor parts;
  if (weight_wanted) {
    const int64_t rows = x.size(0) * x.size(1), width = x.size(2);
    parts = floats({fused_kernels(x).parts(rows, width), width}, x);
    gradients.weight = floats({width}, x);
  }
  with_fused(gradient, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    kernels.head_backward({.gradient = in<T>(gradient),
                           .x = in<T>(x),
                           .inverse = in<float>(inverse),
                           .weight = values_of(weight),
                           .cos = in<T>(cos),
                           .sin = in<T>(sin),
                           .tokens = gradient.size(0),
                           .heads = gradient.size(1),
                           .half = gradient.size(2) / 2,
                           .x_gradient = out<T>(gradients.x),
                           .weight_parts = out<float>(parts),
                           .weight_gradient = out<float>(gradients.weight)},
                          fused_stream(gradient));
  });
  return gradients;
}

void add_embedding_gradient(const at::Tensor& gradient, const at::Tensor& ids, const at::Tensor& weight, double scale,
                            std::optional<int64_t> pad_id) {
  const c10::DeviceGuard guard(gradient.device());
  at::Tensor& total = weight.mutable_grad();
  if (!total.defined()) total = at::zeros_like(weight, at::MemoryFormat::Contiguous);
  const auto [sorted, order] = at::sort(ids, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  with_fused(gradient, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    kernels.embedding_backward({.gradient = in<T>(gradient),
                                .sorted_ids = in<int64_t>(sorted),
                                .order = in<int64_t>(order),
                                .scale = static_cast<float>(scale),
                                .tokens = ids.size(0),
                                .width = weight.size(1),
                                .pad_id = pad_id.value_or(-1),  // an id is never negative
                                .total = {total.mutable_data_ptr(), total.scalar_type() == at::kBFloat16}},
                               fused_stream(gradient));
  });
}

}  // namespace

at::Tensor fused_rms_norm(const at::Tensor& given, const at::Tensor& weight, double eps) {
  const bool x_wanted = wants_gradient({given}), weight_wanted = wants_gradient({weight});
  at::NoGradGuard no_grad;
  const at::Tensor x = given.detach().contiguous(), plain = plain_weight(weight);
  const Normed normed = norm_forward(x, {}, plain, eps);
  if (!x_wanted && !weight_wanted) return normed.output;
  return with_backward(normed.output, {given, weight},
                       [x, plain, inverse = normed.inverse, storage = weight.scalar_type(), x_wanted,
                        weight_wanted](const at::Tensor& gradient) -> std::vector<at::Tensor> {
                         const Gradients made =
                             norm_backward(gradient.contiguous(), {}, x, inverse, plain, x_wanted, weight_wanted);
                         return {made.x, weight_wanted ? made.weight.to(storage) : at::Tensor()};
                       });
}

std::pair<at::Tensor, at::Tensor> fused_add_rms_norm(const at::Tensor& given, const at::Tensor& change,
                                                     const at::Tensor& weight, double eps) {
  const bool sum_wanted = wants_gradient({given, change}), weight_wanted = wants_gradient({weight});
  at::NoGradGuard no_grad;
  const at::Tensor plain = plain_weight(weight);
  const Normed normed = norm_forward(given.detach().contiguous(), change.detach().contiguous(), plain, eps);
  if (!sum_wanted && !weight_wanted) return {normed.sum, normed.output};
  return with_backward_of_two(
      {normed.sum, normed.output}, {given, change, weight},
      [sum = normed.sum.detach(), plain, inverse = normed.inverse, storage = weight.scalar_type(), weight_wanted](
          const at::Tensor& sum_gradient, const at::Tensor& gradient) -> std::vector<at::Tensor> {
        if (!gradient.defined()) return {sum_gradient, sum_gradient, at::Tensor()};
        const at::Tensor beside = sum_gradient.defined() ? sum_gradient.contiguous() : sum_gradient;
        const Gradients made = norm_backward(gradient.contiguous(), beside, sum, inverse, plain, true, weight_wanted);
        return {made.x, made.x, weight_wanted ? made.weight.to(storage) : at::Tensor()};
      });
}

at::Tensor fused_norm_rotate(const at::Tensor& given, const at::Tensor& weight, double eps, const at::Tensor& cos,
                             const at::Tensor& sin) {
  const bool weight_wanted = wants_gradient({weight}), wanted = weight_wanted || wants_gradient({given});
  at::NoGradGuard no_grad;
  const at::Tensor x = given.detach().contiguous(), plain = plain_weight(weight);
  const at::Tensor inverse = plain.defined() ? floats({x.size(0) * x.size(1)}, x) : at::Tensor();
  at::Tensor output = head_forward(x, plain, eps, cos, sin, inverse);
  if (!wanted) return output;
  std::vector<at::Tensor> inputs = {given};
  if (weight.defined()) inputs.push_back(weight);
  return with_backward(output, inputs,
                       [x = plain.defined() ? x : at::Tensor(), plain, inverse, cos, sin, weight_wanted,
                        storage = weight.defined() ? weight.scalar_type() : at::kFloat](
                           const at::Tensor& gradient) -> std::vector<at::Tensor> {
                         const Gradients made =
                             head_backward(gradient.contiguous(), x, inverse, plain, cos, sin, weight_wanted);
                         if (!plain.defined()) return {made.x};
                         return {made.x, weight_wanted ? made.weight.to(storage) : at::Tensor()};
                       });
}

at::Tensor fused_gelu_gate(const at::Tensor& given_gate, const at::Tensor& given_up) {
  const bool wanted = wants_gradient({given_gate, given_up});
  at::NoGradGuard no_grad;
  const at::Tensor gate = given_gate.detach().contiguous(), up = given_up.detach().contiguous();
  const c10::DeviceGuard guard(gate.device());
  at::Tensor output = at::empty_like(gate);
  with_fused(gate, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    kernels.gate(in<T>(gate), in<T>(up), gate.numel(), out<T>(output), fused_stream(gate));
  });
  if (!wanted) return output;
  return with_backward(output, {given_gate, given_up}, [gate, up](const at::Tensor& given) -> std::vector<at::Tensor> {
    const c10::DeviceGuard on_device(gate.device());
    const at::Tensor gradient = given.contiguous(), gate_gradient = at::empty_like(gate),
                     up_gradient = at::empty_like(up);
    with_fused(gate, [&](const auto& kernels, auto kind) {
      using T = decltype(kind);
      kernels.gate_backward(in<T>(gradient), in<T>(gate), in<T>(up), gate.numel(), out<T>(gate_gradient),
                            out<T>(up_gradient), fused_stream(gate));
    });
    return {gate_gradient, up_gradient};
  });
}

at::Tensor fused_embed(const at::Tensor& ids, const at::Tensor& weight, double scale, at::ScalarType dtype,
                       std::optional<int64_t> pad_id) {
  const bool wanted = wants_gradient({weight});
  at::NoGradGuard no_grad;
  const c10::DeviceGuard guard(weight.device());
  const at::Tensor plain = plain_weight(weight), places = ids.contiguous();
  at::Tensor output = at::empty({ids.size(0), weight.size(1)}, weight.options().dtype(dtype).requires_grad(false));
  with_fused(output, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    kernels.embedding({.ids = in<int64_t>(places),
                       .weight = values_of(plain),
                       .scale = static_cast<float>(scale),
                       .tokens = ids.size(0),
                       .width = weight.size(1),
                       .out = out<T>(output)},
                      fused_stream(output));
  });
  if (!wanted) return output;
  return with_backward(output, {},
                       [places, weight, scale, pad_id](const at::Tensor& gradient) -> std::vector<at::Tensor> {
                         add_embedding_gradient(gradient.contiguous(), places, weight, scale, pad_id);
                         return {};
                       });
}

at::Tensor fused_cross_entropy(at::Tensor& logits, const at::Tensor& targets, std::optional<double> softcap,
                               bool gradient_wanted) {
  const c10::DeviceGuard guard(logits.device());
  const at::Tensor losses = at::empty({logits.size(0)}, logits.options().dtype(at::kDouble));
  with_fused(logits, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    kernels.cross_entropy({.logits = out<T>(logits),
                           .targets = in<int64_t>(targets),
                           .rows = logits.size(0),
                           .vocabulary = logits.size(1),
                           .softcap = static_cast<float>(softcap.value_or(0.0)),
                           .gradient_wanted = gradient_wanted,
                           .losses = out<double>(losses)},
                          fused_stream(logits));
  });
  return losses.sum();
}

}  // namespace gemma_sft
