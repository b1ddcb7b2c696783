// Low-rank adapters: y = W x + scale * B (A dropout(x)); A [rank, in] and B [out, rank] in fp32, W frozen.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/run_config.h"

namespace gemma_sft {

struct LoraOptions {
  int64_t rank = 8;
  double alpha = 16;
  double dropout = 0.0;
  bool rslora = false;  // scale = alpha / sqrt(rank) instead of alpha / rank
  // A linear layer is adapted when one of these means its module path (matches_target in configs/module_pattern.h).
  std::vector<std::string> target_modules = {};

  double scale() const;
};

// The lora: section of a configuration; its rank is above 0.
LoraOptions lora_options(const LoraSection& lora);

}  // namespace gemma_sft
