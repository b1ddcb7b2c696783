// The gate of Gemma's MLP: gelu(gate) * up with the tanh form of GELU.
#pragma once

#include <ATen/core/Tensor.h>

namespace gemma_sft {

// gate, up [tokens, intermediate] -> same shape. Differentiable in both; the activation is made again in the backward
// pass instead of being kept.
at::Tensor gelu_gate(const at::Tensor& gate, const at::Tensor& up);

}  // namespace gemma_sft
