// How much memory the activations of a step take, and so how many blocks must be computed again in the backward pass
// for it to fit: what training.activation_checkpointing: auto decides by. No torch.
#pragma once

#include <cstdint>
#include <string>

#include "model/gemma_config.h"

namespace gemma_sft {

struct ActivationNeed {
  int64_t micro_batch_tokens = 0;  // of the largest one
  int64_t value_bytes = 4;         // of the compute dtype
  int64_t trained_weights = 0;
  int64_t weight_bytes = 4;  // of the trained weights' dtype; gradients and moments have it too
  // What a block keeps for its backward pass besides kept_values_per_token, unless it is computed again: bytes a token
  // (inputs under LoRA's dropout and their masks), and bytes (its weights in the compute dtype, where that is another).
  int64_t more_bytes_per_token = 0;
  int64_t more_bytes = 0;
  int64_t other_bytes = 0;  // what else will be allocated, such as a chunk of logits
};

// What a block's forward pass keeps for its backward pass, per token: the inputs of its matrix products, norms and
// gate, each once.
int64_t kept_values_per_token(const GemmaConfig& config);

struct ActivationPlan {
  int64_t recomputed_layers = 0;  // the first so many; at most num_layers
  int64_t needed_bytes = 0;       // for gradients, moments and activations, with that many
  bool fits = true;               // false: not even with all of them
};

// `available_bytes`: memory that is free when the weights are loaded. A tenth of it is left alone: kernels' workspaces
// and what the allocator cannot use.
ActivationPlan plan_activations(const GemmaConfig& config, const ActivationNeed& need, int64_t available_bytes);

// "activation checkpointing: auto: 3 of 18 blocks are computed again; 10.2 of 12.0 GiB"
std::string describe(const ActivationPlan& plan, const GemmaConfig& config, int64_t available_bytes);

}  // namespace gemma_sft
