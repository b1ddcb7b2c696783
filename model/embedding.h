// The token embedding of a model whose output head is the same matrix.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace gemma_sft {

// sqrt(hidden_size), rounded to the dtype that the hidden states have: what transformers multiplies the looked-up rows
// of a model in that dtype with. Never applied to the head.
double embedding_scale(int64_t hidden_size, at::ScalarType dtype);

// ids [tokens] int64, weight [vocab, width] -> weight[ids] in `dtype` [tokens, width].
//
// When the weight requires a gradient, the backward pass adds the lookup's rows straight to weight.grad() instead of
// giving autograd a second [vocab, width] tensor: with 262,144 pieces the tied head has put its gradient there already,
// and a dense one for a few thousand rows would cost as much again in memory and time. So the lookup's gradient reaches
// weight.grad() and nothing else. The row `pad_id` gets none of it (the `padding_idx` of transformers); the tied head
// still gives it one.
at::Tensor embed(const at::Tensor& ids, const at::Tensor& weight, at::ScalarType dtype, std::optional<int64_t> pad_id);

}  // namespace gemma_sft
