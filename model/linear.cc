#include "model/linear.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/dropout.h>

#include <vector>

#include "model/hand_written_backward.h"
#include "model/matrix_product.h"

namespace gemma_sft {

at::Tensor times_transposed(const at::Tensor& x, const at::Tensor& weight) {
  const bool x_wanted = wants_gradient({x}), weight_wanted = wants_gradient({weight});
  at::NoGradGuard no_grad;
  const at::Tensor cast = weight.detach().to(x.scalar_type());
  at::Tensor output = product(x, cast.t());
  if (!x_wanted && !weight_wanted) return output;
  // A frozen weight is cast again in the backward pass: kept, the copies would be a second base model in memory.
  const at::Tensor kept = weight_wanted ? cast : weight.detach();
  return with_backward(
      output, {x, weight},
      [x = weight_wanted ? x.detach() : at::Tensor(), kept = x_wanted ? kept : at::Tensor(), x_wanted, weight_wanted,
       storage = weight.scalar_type()](const at::Tensor& gradient) -> std::vector<at::Tensor> {
        return {x_wanted ? product(gradient, kept.to(gradient.scalar_type())) : at::Tensor(),
                weight_wanted ? product(gradient.t(), x).to(storage) : at::Tensor()};
      });
}

at::Tensor apply(const Linear& linear, const at::Tensor& x, bool training) {
  const at::Tensor output = times_transposed(x, linear.weight);
  if (!linear.lora_a.defined()) return output;
  const at::Tensor kept = training && linear.lora_dropout > 0 ? at::dropout(x, linear.lora_dropout, true) : x;
  return output.add(times_transposed(times_transposed(kept, linear.lora_a), linear.lora_b), linear.lora_scale);
}

}  // namespace gemma_sft
