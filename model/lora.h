// Low-rank adapters: y = W x + scale * B (A dropout(x)); A [rank, in] and B [out, rank] in fp32, W frozen.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gemma_sft {

struct LoraOptions {
  int64_t rank = 8;
  double alpha = 16;
  double dropout = 0.0;
  bool rslora = false;  // scale = alpha / sqrt(rank) instead of alpha / rank
  // A linear layer is adapted when its module path ("model.layers.3.self_attn.q_proj") equals a pattern, ends with
  // "." + pattern, or matches it as a glob (*, ?) over the whole path.
  std::vector<std::string> target_modules = {};

  double scale() const;
};

// True when the module at `path` is meant by `pattern` (the rule above).
bool matches_target(const std::string& path, const std::string& pattern);

}  // namespace gemma_sft
