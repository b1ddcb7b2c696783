#include "model/gelu_gate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/mul.h>

#include "model/hand_written_backward.h"

namespace gemma_sft {

at::Tensor gelu_gate(const at::Tensor& gate, const at::Tensor& up) {
  const bool differentiable = wants_gradient({gate, up});
  at::NoGradGuard no_grad;
  at::Tensor output = at::gelu(gate, "tanh").mul_(up);
  if (!differentiable) return output;
  return with_backward(output, {gate, up},
                       [gate = gate.detach(), up = up.detach()](const at::Tensor& gradient) -> std::vector<at::Tensor> {
                         at::Tensor up_gradient = at::gelu(gate, "tanh").mul_(gradient);
                         at::Tensor gate_gradient = at::gelu_backward(at::mul(gradient, up), gate, "tanh");
                         return {gate_gradient, up_gradient};
                       });
}

}  // namespace gemma_sft
