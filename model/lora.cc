#include "model/lora.h"

#include <cmath>

namespace gemma_sft {

double LoraOptions::scale() const {
  return alpha / (rslora ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
}

LoraOptions lora_options(const LoraSection& lora) {
  return {.rank = lora.rank,
          .alpha = lora.alpha,
          .dropout = lora.dropout,
          .rslora = lora.rslora,
          .target_modules = lora.target_modules};
}

}  // namespace gemma_sft
