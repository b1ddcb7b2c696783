#include "tests/model/tiny_models.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/sub.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "model/chunked_cross_entropy.h"

namespace gemma_sft {
namespace {

GemmaConfig tiny_config() {
  GemmaConfig config;
  config.vocab_size = 97;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 12;
  config.max_position_embeddings = 256;
  config.query_scale = 1.0 / std::sqrt(20.0);
  config.sliding_window = 6;
  config.sandwich_norms = true;
  return config;
}

PackedBatch lay_out(const Documents& documents, int64_t padded_length) {
  PackedBatch batch;
  batch.padded_length = padded_length;
  batch.document_offsets.push_back(0);
  for (const std::vector<int64_t>& document : documents) {
    const auto length = static_cast<int64_t>(document.size());
    for (int64_t i = 0; i < std::max(length, padded_length); ++i) {
      const bool real = i < length, targeted = i + 1 < length;
      batch.input_ids.push_back(real ? document[static_cast<size_t>(i)] : 0);
      batch.positions.push_back(real ? i : 0);
      batch.targets.push_back(targeted ? document[static_cast<size_t>(i) + 1] : -1);
      batch.target_tokens += targeted ? 1 : 0;
    }
    batch.document_lengths.push_back(length);
    batch.document_offsets.push_back(batch.tokens());
    batch.real_tokens += length;
  }
  return batch;
}

}  // namespace

GemmaConfig tiny_gemma3() {
  GemmaConfig config = tiny_config();
  config.family = Family::kGemma3;
  config.layer_kinds = {LayerKind::kSliding, LayerKind::kSliding, LayerKind::kGlobal};
  config.rope_theta_global = 1e6;
  config.rope_linear_factor_global = 8.0;
  config.qk_norm = true;
  return config;
}

GemmaConfig tiny_gemma2() {
  GemmaConfig config = tiny_config();
  config.family = Family::kGemma2;
  config.layer_kinds = {LayerKind::kSliding, LayerKind::kGlobal, LayerKind::kSliding};
  config.attention_softcap = 2.0;
  config.logit_softcap = 3.0;
  return config;
}

Gemma random_model(const GemmaConfig& config, const GemmaOptions& options, uint64_t seed) {
  Gemma model(config, options);
  at::NoGradGuard no_grad;
  at::Generator generator = at::detail::createCPUGenerator(seed);
  for (const Parameter& parameter : model.base_parameters()) {
    // Norms by a third; matrices so that activations keep their size.
    const double deviation =
        parameter.tensor.dim() == 1 ? 0.3 : 1.0 / std::sqrt(static_cast<double>(parameter.tensor.size(1)));
    at::Tensor(parameter.tensor).normal_(0.0, deviation, generator);
  }
  return model;
}

Documents random_documents(const std::vector<int64_t>& lengths, uint64_t seed) {
  std::mt19937_64 random(seed);
  Documents documents;
  for (const int64_t length : lengths) {
    std::vector<int64_t>& document = documents.emplace_back();
    for (int64_t i = 0; i < length; ++i) document.push_back(1 + static_cast<int64_t>(random() % 96));
  }
  return documents;
}

PackedBatch pack(const Documents& documents) { return lay_out(documents, 0); }

PackedBatch pad(const Documents& documents) {
  size_t longest = 0;
  for (const auto& document : documents) longest = std::max(longest, document.size());
  return lay_out(documents, static_cast<int64_t>(longest));
}

at::Tensor loss_of(Gemma& model, const PackedBatch& batch) {
  const DeviceBatch on_device = to_device(batch, model.options().device);
  return chunked_cross_entropy(model.forward(on_device), model.head_weight(), on_device.target_rows,
                               on_device.targets.index_select(0, on_device.target_rows),
                               {.logit_softcap = model.config().logit_softcap});
}

LossAndGradients train_pass(Gemma& model, const PackedBatch& batch) {
  LossAndGradients result;
  const at::Tensor loss = loss_of(model, batch);
  loss.backward();
  result.loss = loss.item<double>();
  for (const Parameter& parameter : model.trainable_parameters()) {
    result.gradients.push_back(parameter.tensor.grad());
    at::Tensor(parameter.tensor).mutable_grad().reset();
  }
  return result;
}

at::Tensor tensor_of(const std::vector<float>& values, at::IntArrayRef sizes) {
  return at::from_blob(const_cast<float*>(values.data()), sizes, at::TensorOptions().dtype(at::kFloat)).clone();
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  at::NoGradGuard no_grad;
  return at::sub(a.to(at::kDouble), b.to(at::kDouble)).abs().max().item<double>();
}

double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  return largest_difference(a, b) / (b.detach().to(at::kDouble).abs().max().item<double>() + 1e-12);
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) { return a.scalar_type() == b.scalar_type() && a.equal(b); }

}  // namespace gemma_sft
