// Which layers of a model lora.target_modules means. No torch here: a job is checked before it is sent.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/gemma_config.h"

namespace gemma_sft {

// A linear layer that can be adapted.
struct LinearLayer {
  std::string path;  // "model.layers.3.self_attn.q_proj"
  int64_t in = 0, out = 0;
};
// Those of a model, in its order.
std::vector<LinearLayer> linear_layers(const GemmaConfig& config);

// Is the layer meant by one of the patterns (matches_target in configs/module_pattern.h)?
bool is_target(const std::string& path, const std::vector<std::string>& patterns);

// Throws Error(kUsage) unless there are patterns and each of them means one of the layers.
void require_targets(const std::vector<std::string>& patterns, const std::vector<LinearLayer>& layers);

}  // namespace gemma_sft
