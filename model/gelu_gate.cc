#include "model/gelu_gate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/mul.h>

#include <vector>

#include "model/cpu_rows.h"
#include "model/gpu/fused.h"
#include "model/hand_written_backward.h"

namespace gemma_sft {
namespace {

at::Tensor forward(const at::Tensor& gate, const at::Tensor& up) {
  if (!has_row_kernels(gate)) return at::gelu(gate, "tanh").mul_(up);
  at::Tensor output = at::empty_like(gate);
  with_row_kernels(gate, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    for_rows(gate.numel(), 1, [&](int64_t begin, int64_t end) {
      kernels.gelu_gate(rows_in<T>(gate) + begin, rows_in<T>(up) + begin, end - begin, rows_out<T>(output) + begin);
    });
  });
  return output;
}

std::vector<at::Tensor> backward(const at::Tensor& gradient, const at::Tensor& gate, const at::Tensor& up) {
  if (!has_row_kernels(gate)) {
    return {at::gelu_backward(at::mul(gradient, up), gate, "tanh"), at::gelu(gate, "tanh").mul_(gradient)};
  }
  const at::Tensor given = gradient.contiguous();
  at::Tensor gate_gradient = at::empty_like(gate), up_gradient = at::empty_like(up);
  with_row_kernels(gate, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    for_rows(gate.numel(), 1, [&](int64_t begin, int64_t end) {
      kernels.gelu_gate_backward(rows_in<T>(given) + begin, rows_in<T>(gate) + begin, rows_in<T>(up) + begin,
                                 end - begin, rows_out<T>(gate_gradient) + begin, rows_out<T>(up_gradient) + begin);
    });
  });
  return {gate_gradient, up_gradient};
}

}  // namespace

at::Tensor gelu_gate(const at::Tensor& given_gate, const at::Tensor& given_up) {
  if (takes_fused(FusedKernel::kGate, given_gate)) return fused_gelu_gate(given_gate, given_up);
  const bool differentiable = wants_gradient({given_gate, given_up});
  at::NoGradGuard no_grad;
  const at::Tensor gate = given_gate.detach().contiguous(), up = given_up.detach().contiguous();
  at::Tensor output = forward(gate, up);
  if (!differentiable) return output;
  return with_backward(
      output, {given_gate, given_up},
      [gate, up](const at::Tensor& gradient) -> std::vector<at::Tensor> { return backward(gradient, gate, up); });
}

}  // namespace gemma_sft
