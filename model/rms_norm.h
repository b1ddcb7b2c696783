// Gemma's RMSNorm: x / sqrt(mean(x^2) + eps) * (1 + weight), all of it in fp32, cast to the dtype of x last.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

namespace gemma_sft {

// x [..., width]; weight [width] in its storage dtype. Differentiable in both.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// {x + change, rms_norm(x + change)}: a residual connection and the norm behind it. Differentiable in all three.
std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& change, const at::Tensor& weight,
                                               double eps);

}  // namespace gemma_sft
