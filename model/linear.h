// A linear layer without bias, with or without a low-rank adapter.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace gemma_sft {

struct Linear {
  std::string path;   // module path as in Hugging Face: "model.layers.3.self_attn.q_proj"
  at::Tensor weight;  // [out, in], storage dtype

  at::Tensor lora_a;  // [rank, in] fp32; undefined: no adapter
  at::Tensor lora_b;  // [out, rank] fp32
  double lora_scale = 0;
  double lora_dropout = 0;
};

// x [tokens, in] @ weight^T -> [tokens, out] in the dtype of x, the weight [out, in] cast to it; its gradient comes in
// the weight's own dtype. Differentiable in both.
at::Tensor times_transposed(const at::Tensor& x, const at::Tensor& weight);

// x [tokens, in] -> [tokens, out] in the dtype of x; weights are cast to it. `training` turns the adapter's dropout on,
// whose mask comes from the device's default generator.
at::Tensor apply(const Linear& linear, const at::Tensor& x, bool training);

}  // namespace gemma_sft
