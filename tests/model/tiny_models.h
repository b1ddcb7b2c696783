// Small random models and batches for the tests of model/.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "data/batches/packed_batch.h"
#include "model/gemma.h"

namespace gemma_sft {

using Documents = std::vector<std::vector<int64_t>>;

// Gemma 3 shape: two sliding layers and a global one in turn, window 6, QK-norm, two KV heads of four, vocabulary 97.
GemmaConfig tiny_gemma3();
// Gemma 2 shape: soft-caps that bite, window 6 on every other layer.
GemmaConfig tiny_gemma2();

// Every weight random from the seed, norms too.
Gemma random_model(const GemmaConfig& config, const GemmaOptions& options, uint64_t seed);

// Random documents of these lengths, ids 1 .. 96.
Documents random_documents(const std::vector<int64_t>& lengths, uint64_t seed);

// The targets of a document are all of its tokens but the first.
PackedBatch pack(const Documents& documents);
PackedBatch pad(const Documents& documents);

// Sum of the losses, with autograd.
at::Tensor loss_of(Gemma& model, const PackedBatch& batch);

// Loss, its backward pass, and the gradients in the order of `trainable_parameters`; clears them in the model.
struct LossAndGradients {
  double loss = 0;
  std::vector<at::Tensor> gradients;
};
LossAndGradients train_pass(Gemma& model, const PackedBatch& batch);

at::Tensor tensor_of(const std::vector<float>& values, at::IntArrayRef sizes);
double largest_difference(const at::Tensor& a, const at::Tensor& b);
// largest_difference / largest magnitude of b.
double relative_difference(const at::Tensor& a, const at::Tensor& b);
bool same_bits(const at::Tensor& a, const at::Tensor& b);

}  // namespace gemma_sft
