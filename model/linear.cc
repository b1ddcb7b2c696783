#include "model/linear.h"

#include <ATen/ops/dropout.h>
#include <ATen/ops/linear.h>

namespace gemma_sft {

at::Tensor apply(const Linear& linear, const at::Tensor& x, bool training) {
  const at::ScalarType dtype = x.scalar_type();
  at::Tensor output = at::linear(x, linear.weight.to(dtype));
  if (!linear.lora_a.defined()) return output;
  const at::Tensor kept = training && linear.lora_dropout > 0 ? at::dropout(x, linear.lora_dropout, true) : x;
  const at::Tensor down = at::linear(kept, linear.lora_a.to(dtype));
  return output.add(at::linear(down, linear.lora_b.to(dtype)), linear.lora_scale);
}

}  // namespace gemma_sft
