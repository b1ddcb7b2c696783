// Sum of the negative log-likelihoods of the targets under softmax(softcap(hidden @ weight^T)), without ever holding
// all logits: chunks of tokens, gradients of hidden and weight made in the same pass (hand-written backward).
//
// Rows without a target are dropped before the matrix product. Memory: one chunk of logits + the gradients of hidden
// and weight; doubling the tokens adds no logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace gemma_sft {

// The most memory that a chunk of logits takes of itself, on any device.
inline constexpr int64_t kLossChunkBytes = int64_t{1} << 30;

struct CrossEntropyOptions {
  std::optional<double> logit_softcap = {};
  int64_t chunk_tokens = 0;  // 0: chosen so that a chunk of logits is about 512 MiB on CPU, 1 GiB on CUDA
  // backward() is called on the loss itself: its gradient is 1, and the gradients, the largest tensors of a step, need
  // no pass to be multiplied by it.
  bool backward_starts_here = false;
};

// hidden [tokens, width] in the compute dtype; weight [vocab, width] in the storage dtype; target_rows [n] int64
// indices into hidden; targets [n] int64 token ids. Gives a fp32 scalar with autograd. n = 0 gives a zero tied to
// hidden and weight. Logits, softmax and the sum are fp32 whatever the compute dtype.
at::Tensor chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target_rows,
                                 const at::Tensor& targets, const CrossEntropyOptions& options);

}  // namespace gemma_sft
