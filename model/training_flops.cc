#include "model/training_flops.h"

namespace gemma_sft {
namespace {

int64_t block_weights(const GemmaConfig& config) {
  return config.hidden_size * config.head_dim * (2 * config.num_heads + 2 * config.num_kv_heads) +
         3 * config.hidden_size * config.intermediate_size;
}

// Pairs of a query and a key that it sees; window 0: none.
double visible_pairs(int64_t length, int64_t window) {
  const auto n = static_cast<double>(length);
  if (window <= 0 || window >= length) return n * (n + 1) / 2;
  const auto w = static_cast<double>(window);
  return w * (w + 1) / 2 + (n - w) * w;
}

}  // namespace

double training_flops(const GemmaConfig& config, const std::vector<int64_t>& lengths, int64_t adapter_weights) {
  const auto weights =
      static_cast<double>(config.num_layers * block_weights(config) + config.vocab_size * config.hidden_size);
  const double per_token = adapter_weights > 0 ? 4 * weights + 6 * static_cast<double>(adapter_weights) : 6 * weights;
  const auto width = static_cast<double>(config.num_heads * config.head_dim);
  double flops = 0;
  for (const int64_t length : lengths) {
    flops += per_token * static_cast<double>(length);
    for (const LayerKind kind : config.layer_kinds) {
      flops += 12 * width * visible_pairs(length, kind == LayerKind::kSliding ? config.sliding_window : 0);
    }
  }
  return flops;
}

int64_t adapter_weights(const GemmaConfig& config, int64_t rank) {
  const int64_t width = config.hidden_size, query = config.num_heads * config.head_dim,
                key = config.num_kv_heads * config.head_dim, inner = config.intermediate_size;
  const int64_t sides = (width + query) + 2 * (width + key) + (query + width) + 3 * (width + inner);
  return config.num_layers * rank * sides;
}

}  // namespace gemma_sft
