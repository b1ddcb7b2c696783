// Shapes by name: the published models' (their config.json on the hub), and tiny ones whose vocabulary is the
// tokenizer's.
#include <cmath>
#include <utility>

#include "model/gemma_config.h"

namespace gemma_sft {
namespace {

struct Sizes {
  int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim;
};

GemmaConfig sized(Family family, const Sizes& sizes) {
  GemmaConfig config;
  config.family = family;
  config.vocab_size = sizes.vocab;
  config.hidden_size = sizes.hidden;
  config.intermediate_size = sizes.intermediate;
  config.num_layers = sizes.layers;
  config.num_heads = sizes.heads;
  config.num_kv_heads = sizes.kv_heads;
  config.head_dim = sizes.head_dim;
  config.query_scale = 1.0 / std::sqrt(static_cast<double>(sizes.head_dim));
  config.sandwich_norms = family != Family::kGemma1;
  config.qk_norm = family == Family::kGemma3;
  config.dtype = "bfloat16";
  return config;
}

// Every `pattern`-th layer is global, the others see a window.
void set_windows(GemmaConfig& config, int64_t window, int64_t pattern) {
  config.sliding_window = window;
  config.layer_kinds.clear();
  for (int64_t i = 0; i < config.num_layers; ++i) {
    config.layer_kinds.push_back((i + 1) % pattern == 0 ? LayerKind::kGlobal : LayerKind::kSliding);
  }
}

GemmaConfig gemma_1(const Sizes& sizes) {
  GemmaConfig config = sized(Family::kGemma1, sizes);
  config.layer_kinds.assign(static_cast<size_t>(config.num_layers), LayerKind::kGlobal);
  return config;
}

GemmaConfig gemma_2(const Sizes& sizes, double query_scalar, int64_t window = 4096) {
  GemmaConfig config = sized(Family::kGemma2, sizes);
  set_windows(config, window, 2);
  config.query_scale = 1.0 / std::sqrt(query_scalar);
  config.attention_softcap = 50.0;
  config.logit_softcap = 30.0;
  return config;
}

GemmaConfig gemma_3(const Sizes& sizes, int64_t window, int64_t max_positions, double rope_factor = 1.0) {
  GemmaConfig config = sized(Family::kGemma3, sizes);
  set_windows(config, window, 6);
  config.max_position_embeddings = max_positions;
  config.rope_theta_global = 1'000'000;
  config.rope_linear_factor_global = rope_factor;
  return config;
}

const std::vector<std::pair<std::string, GemmaConfig>>& presets() {
  static const std::vector<std::pair<std::string, GemmaConfig>> all = {
      {"gemma-2b", gemma_1({256'000, 2048, 16'384, 18, 8, 1, 256})},
      {"gemma-7b", gemma_1({256'000, 3072, 24'576, 28, 16, 16, 256})},
      {"gemma-2-2b", gemma_2({256'000, 2304, 9216, 26, 8, 4, 256}, 256)},
      {"gemma-2-9b", gemma_2({256'000, 3584, 14'336, 42, 16, 8, 256}, 256)},
      {"gemma-2-27b", gemma_2({256'000, 4608, 36'864, 46, 32, 16, 128}, 144)},
      {"gemma-3-270m", gemma_3({262'144, 640, 2048, 18, 4, 1, 256}, 512, 32'768)},
      {"gemma-3-1b", gemma_3({262'144, 1152, 6912, 26, 4, 1, 256}, 512, 32'768)},
      {"gemma-3-4b", gemma_3({262'208, 2560, 10'240, 34, 8, 4, 256}, 1024, 131'072, 8.0)},
      {"tiny-gemma-1", gemma_1({0, 64, 256, 2, 4, 1, 16})},
      {"tiny-gemma-2", gemma_2({0, 64, 256, 4, 4, 2, 16}, 16, 32)},
      {"tiny-gemma-3", gemma_3({0, 64, 256, 6, 4, 1, 16}, 32, 8192)},
  };
  return all;
}

}  // namespace

std::optional<GemmaConfig> find_preset(const std::string& name) {
  for (const auto& [preset, config] : presets()) {
    if (preset == name) return config;
  }
  return std::nullopt;
}

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const auto& [name, config] : presets()) names.push_back(name);
  return names;
}

}  // namespace gemma_sft
