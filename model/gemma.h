// Gemma 1, 2 and 3 (text) in one implementation, driven by GemmaConfig.
//
//   h = embed(ids) * round_to_compute_dtype(sqrt(hidden_size))
//   per layer: h += [norm](attention(norm(h)));  h += [norm](mlp(norm(h)))     ([norm]: Gemma 2 and 3)
//   out = norm(h)
// RMSNorm is x / rms(x) * (1 + w) in fp32, cast last. The MLP is down(gelu_tanh(gate(x)) * up(x)). Attention: q, k, v,
// optional norm of q and k, RoPE (split halves, angles in fp32), scaled scores, optional soft-cap, causal (and
// windowed) softmax. The head is tied to the embedding and is not applied here: see model/chunked_cross_entropy.h and
// `logits`.
//
// Parameters keep Hugging Face's names ("model.layers.0.self_attn.q_proj.weight"). They are stored in `storage_dtype`
// and cast to `compute_dtype` where they are used, so gradients arrive in the storage dtype (bf16_mixed: fp32 masters).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <memory>
#include <string>
#include <vector>

#include "model/device_batch.h"
#include "model/gemma_config.h"
#include "model/kv_cache.h"
#include "model/lora.h"

namespace gemma_sft {

struct GemmaOptions {
  c10::Device device = c10::Device(c10::kCPU);
  c10::ScalarType storage_dtype = c10::ScalarType::Float;
  c10::ScalarType compute_dtype = c10::ScalarType::Float;
  bool activation_checkpointing = false;  // recompute blocks in the backward pass
  int64_t recomputed_layers = -1;         // with it: only the first so many; -1: all
};

struct Parameter {
  std::string name;     // as in Hugging Face; for LoRA as in PEFT
  at::Tensor tensor;    // leaf; requires_grad says whether it is trained
  bool decays = false;  // weight decay applies (Hugging Face's groups: no norms, no biases)
};

// Owns its parameters. One thread at a time.
class Gemma {
 public:
  Gemma(const GemmaConfig& config, const GemmaOptions& options);
  ~Gemma();
  Gemma(Gemma&&) noexcept;

  const GemmaConfig& config() const;
  const GemmaOptions& options() const;

  // Hidden states after the final norm: [tokens, hidden_size] in the compute dtype, with autograd when grad mode is on.
  at::Tensor forward(const DeviceBatch& batch);

  // The tied head's weight [vocab_size, hidden_size] in storage dtype.
  at::Tensor head_weight() const;

  // Logits (soft-capped) of some hidden states: [n, vocab_size], fp32. For generation and tests, not for training.
  at::Tensor logits(const at::Tensor& hidden);

  // Incremental decoding: the tokens that follow what `cache` holds (one document) -> logits of the last one
  // [vocab_size].
  at::Tensor decode(const std::vector<int64_t>& new_tokens, KvCache& cache);

  // Base weights in Hugging Face's order; empty tensors are never in it. Freezing is done through requires_grad.
  std::vector<Parameter> base_parameters() const;

  // Adds LoRA to every linear layer that matches a pattern of `options` and freezes the base. A ~ Kaiming-uniform from
  // `seed`, B = 0, both fp32. Throws Error(kUsage) when a pattern matches nothing.
  void add_lora(const LoraOptions& options, uint64_t seed);
  bool has_lora() const;
  const LoraOptions& lora_options() const;  // requires has_lora()
  std::vector<Parameter> lora_parameters() const;
  // base weight + scale * B A, computed in fp32 and rounded once to the storage dtype: what export --format merged
  // writes.
  at::Tensor merged_weight(const std::string& base_name) const;

  // What the optimizer trains: LoRA's parameters when there are any, else the base's.
  std::vector<Parameter> trainable_parameters() const;

  // Where attention could go either way (model/gpu/flash_attention.h), times both on such a batch, for layers with a
  // window and without, and takes the faster one from now on. They round differently, so a run that must repeat itself
  // to the bit leaves this out.
  void choose_attention(const DeviceBatch& batch);

  // Which kernels the device's work goes through, in a line for the log: "our kernels: norm, ...; attention: flash".
  std::string describe_kernels() const;

  void set_training(bool training);  // LoRA dropout only

  // From now on the first `layers` blocks are run again in the backward pass, the others are not. Changes no number.
  void recompute_layers(int64_t layers);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gemma_sft
