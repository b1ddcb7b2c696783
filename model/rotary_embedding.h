// Rotary position embedding: the pair (x[i], x[i + head_dim/2]) is turned by position * theta^(-2i / head_dim).
#pragma once

#include <ATen/core/Tensor.h>

namespace gemma_sft {

struct RotaryTable {
  at::Tensor cos;  // [tokens, 1, head_dim / 2] in the compute dtype
  at::Tensor sin;
};

// Angles are fp32 whatever the dtype (as transformers); cos and sin are rounded to it. positions [tokens] int64.
RotaryTable rotary_table(const at::Tensor& positions, int64_t head_dim, double theta, double linear_factor,
                         at::ScalarType dtype);

// x [tokens, heads, head_dim] -> same shape. Differentiable in x.
at::Tensor rotate(const at::Tensor& x, const RotaryTable& table);

// The same behind a norm of each head (model/rms_norm.h), whose weight [head_dim] may be undefined: no norm.
// Differentiable in both.
at::Tensor norm_and_rotate(const at::Tensor& x, const at::Tensor& weight, double eps, const RotaryTable& table);

}  // namespace gemma_sft
