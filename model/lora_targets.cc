#include "model/lora_targets.h"

#include <fmt/format.h>

#include <algorithm>

#include "configs/error.h"
#include "configs/module_pattern.h"

namespace gemma_sft {

std::vector<LinearLayer> linear_layers(const GemmaConfig& config) {
  const int64_t width = config.hidden_size, wide = config.intermediate_size;
  const int64_t queries = config.num_heads * config.head_dim, keys = config.num_kv_heads * config.head_dim;
  std::vector<LinearLayer> layers;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string block = fmt::format("model.layers.{}.", i);
    layers.push_back({block + "self_attn.q_proj", width, queries});
    layers.push_back({block + "self_attn.k_proj", width, keys});
    layers.push_back({block + "self_attn.v_proj", width, keys});
    layers.push_back({block + "self_attn.o_proj", queries, width});
    layers.push_back({block + "mlp.gate_proj", width, wide});
    layers.push_back({block + "mlp.up_proj", width, wide});
    layers.push_back({block + "mlp.down_proj", wide, width});
  }
  return layers;
}

bool is_target(const std::string& path, const std::vector<std::string>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches_target(path, pattern); });
}

void require_targets(const std::vector<std::string>& patterns, const std::vector<LinearLayer>& layers) {
  if (patterns.empty()) throw Error(ErrorKind::kUsage, "lora.target_modules: names no layer");
  for (const std::string& pattern : patterns) {
    if (std::any_of(layers.begin(), layers.end(),
                    [&](const LinearLayer& layer) { return matches_target(layer.path, pattern); })) {
      continue;
    }
    throw Error(
        ErrorKind::kUsage,
        fmt::format("lora.target_modules: \"{}\" matches no linear layer; the layers are q_proj, k_proj, v_proj, "
                    "o_proj, gate_proj, up_proj and down_proj, for example {}",
                    pattern, layers.front().path));
  }
}

}  // namespace gemma_sft
