// How many floating-point operations training a model on some documents asks for: the numerator of MFU, the share of a
// chip's peak that a trainer reaches. No torch.
//
// Counted is what the mathematics needs, not what a program does: 6 per weight of a matrix product and token (2
// forward, 4 backward), 12 per head, dimension and pair of a query and a key that it sees (its document's earlier ones,
// within the window on sliding layers). The tied head counts once, the lookup, norms and activations not at all, and
// what is computed again in the backward pass neither. With LoRA the base needs no gradients of its weights: 4 instead
// of 6, and 6 per weight of the adapter.
#pragma once

#include <cstdint>
#include <vector>

#include "model/gemma_config.h"

namespace gemma_sft {

// For one pass over documents of these lengths. `adapter_weights`: of all LoRA matrices; 0: all weights are trained.
double training_flops(const GemmaConfig& config, const std::vector<int64_t>& lengths, int64_t adapter_weights = 0);

// Weights of the LoRA matrices on all seven linear layers of each block.
int64_t adapter_weights(const GemmaConfig& config, int64_t rank);

}  // namespace gemma_sft
