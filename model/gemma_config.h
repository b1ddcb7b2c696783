// A Hugging Face config.json of Gemma 1, 1.1, 2 or 3 (text), old or new spelling, nested text_config or flat -> what
// the model is. No torch here: the torch-free program reads it too.
//
// Any key whose value we do not honour is refused by name: untied head, biases, other rope types, other activations,
// unknown layer types, Gemma 3n and 4, models that are not Gemma.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace gemma_sft {

enum class Family { kGemma1, kGemma2, kGemma3 };

enum class LayerKind { kGlobal, kSliding };

struct GemmaConfig {
  Family family = Family::kGemma3;
  int64_t vocab_size = 0;  // rows of the embedding, may exceed the tokenizer's pieces
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;  // 1: multi-query; num_heads: multi-head
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 8192;
  double rms_norm_eps = 1e-6;
  double query_scale = 1.0;                 // query_pre_attn_scalar^-0.5 (Gemma 2, 3), head_dim^-0.5 (Gemma 1)
  std::optional<double> attention_softcap;  // Gemma 2: 50, applied before the mask
  std::optional<double> logit_softcap;      // Gemma 2: 30
  int64_t sliding_window = 0;          // key j is seen by query i when i - window < j <= i; used by kSliding layers
  std::vector<LayerKind> layer_kinds;  // [num_layers]
  double rope_theta_global = 10000.0;
  double rope_theta_local = 10000.0;       // kSliding layers of Gemma 3; Gemma 1 and 2 have one theta
  double rope_linear_factor_global = 1.0;  // positions are divided by it, kGlobal layers of Gemma 3 only
  bool qk_norm = false;                    // Gemma 3
  bool sandwich_norms = false;             // Gemma 2, 3: a norm after attention and after the MLP, too
  bool image_text = false;  // image-text checkpoint: text tensors live under a prefix, vision tensors are carried
  std::optional<int64_t> pad_token_id = 0;  // its row of the embedding gets no gradient from the lookup
  double initializer_range = 0.02;          // standard deviation of the weights of a new model
  std::string dtype;                        // "bfloat16", ... as the file says; empty when it does not

  int64_t parameter_count() const;  // text model, tied embedding counted once
  bool operator==(const GemmaConfig&) const = default;
};

// Throws Error(kModel) with every problem of the file: key, value, what is supported.
GemmaConfig load_gemma_config(const std::filesystem::path& model_folder);
GemmaConfig parse_gemma_config(const std::string& json, const std::string& name_for_messages);

struct TokenIds {
  int64_t pad = 0;
  int64_t eos = 1;
  int64_t bos = 2;
};

// The config.json text of a new text-only model. It says rope settings, layer types and dtype in both spellings:
// transformers 5 reads `rope_parameters`, `layer_types` and `dtype`, transformers 4 and the converters of other
// programs read `rope_theta`, `rope_local_base_freq`, `rope_scaling`, `sliding_window_pattern` and `torch_dtype`; both
// ignore the other's.
std::string to_config_json(const GemmaConfig& config, const std::string& dtype, const TokenIds& ids = {});

// A shape by name: gemma-2b, gemma-7b, gemma-2-2b, gemma-2-9b, gemma-2-27b, gemma-3-270m, gemma-3-1b, gemma-3-4b,
// tiny-gemma-1, tiny-gemma-2, tiny-gemma-3 (vocab_size 0: the tokenizer's size, see model/model_init.h). nullopt when
// unknown.
std::optional<GemmaConfig> find_preset(const std::string& name);
std::vector<std::string> preset_names();

}  // namespace gemma_sft
