#include "trainer/activation_budget.h"

#include <fmt/format.h>

#include <algorithm>

namespace gemma_sft {
namespace {

// Gradients, and the optimizer's two moments.
constexpr int64_t kCopiesOfTrainedWeights = 3;

}  // namespace

int64_t kept_values_per_token(const GemmaConfig& config) {
  const int64_t queries = config.num_heads * config.head_dim, keys = config.num_kv_heads * config.head_dim;
  // The block's input, its norm, the sum in its middle and that one's norm; behind attention and MLP one more each.
  int64_t values = (config.sandwich_norms ? 6 : 4) * config.hidden_size;
  // Rotated query and key, value and output; what a norm of query and key has read.
  values += 2 * queries + 2 * keys;
  if (config.qk_norm) values += queries + keys;
  return values + 3 * config.intermediate_size;  // gate, up and their product
}

ActivationPlan plan_activations(const GemmaConfig& config, const ActivationNeed& need, int64_t available_bytes) {
  const int64_t fixed = kCopiesOfTrainedWeights * need.trained_weights * need.weight_bytes + need.other_bytes;
  const int64_t per_token = need.value_bytes * kept_values_per_token(config) + need.more_bytes_per_token;
  const int64_t kept = need.micro_batch_tokens * per_token + need.more_bytes;
  const int64_t input = need.micro_batch_tokens * need.value_bytes * config.hidden_size;
  const auto needed = [&](int64_t recomputed) {
    // While one of them is computed again, it keeps what it kept the first time.
    return fixed + (config.num_layers - recomputed) * kept + recomputed * input + (recomputed > 0 ? kept : 0);
  };
  const int64_t budget = available_bytes / 10 * 9;
  ActivationPlan plan{.recomputed_layers = 0, .needed_bytes = needed(0)};
  while (plan.needed_bytes > budget && plan.recomputed_layers < config.num_layers) {
    plan.needed_bytes = needed(++plan.recomputed_layers);
  }
  plan.fits = plan.needed_bytes <= budget;
  return plan;
}

std::string describe(const ActivationPlan& plan, const GemmaConfig& config, int64_t available_bytes) {
  constexpr double kGiB = 1 << 30;
  return fmt::format("activation checkpointing: auto: {} of {} blocks are computed again; about {:.1f} of {:.1f} GiB{}",
                     plan.recomputed_layers, config.num_layers, static_cast<double>(plan.needed_bytes) / kGiB,
                     static_cast<double>(available_bytes) / kGiB, plan.fits ? "" : ", which may not suffice");
}

}  // namespace gemma_sft
