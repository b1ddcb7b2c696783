#include "trainer/activation_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gemma_sft {
namespace {

using ::testing::HasSubstr;

// Gemma 1: 4 * 10 + 2 * (2 + 1) * 4 + 3 * 100. Gemma 3 has two more norms and those of query and key.
GemmaConfig small(bool gemma_3) {
  GemmaConfig config;
  config.hidden_size = 10;
  config.intermediate_size = 100;
  config.num_layers = 4;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 4;
  config.sandwich_norms = config.qk_norm = gemma_3;
  return config;
}

TEST(ActivationBudget, CountsWhatABlockKeeps) {
  EXPECT_EQ(kept_values_per_token(small(false)), 40 + 24 + 300);
  EXPECT_EQ(kept_values_per_token(small(true)), 60 + 24 + 12 + 300);
}

// 5 tokens of 2 bytes: a block keeps 3640, its input is 100; weights take 3 * 1000 * 2.
TEST(ActivationBudget, RecomputesNoMoreBlocksThanNeeded) {
  const ActivationNeed need{.micro_batch_tokens = 5, .value_bytes = 2, .trained_weights = 1000, .weight_bytes = 2};
  const int64_t all_kept = 6000 + 4 * 3640;
  const auto layers = [&](int64_t budget) {
    return plan_activations(small(false), need, budget * 10 / 9 + 10).recomputed_layers;
  };
  EXPECT_EQ(layers(all_kept), 0);
  // One recomputed block saves nothing: while it runs again, it keeps as much as before, and its input besides.
  EXPECT_EQ(layers(all_kept - 100), 2);
  EXPECT_EQ(layers(6000 + 2 * 3640 + 2 * 100 + 3640), 2);
  EXPECT_EQ(layers(6000 + 3640 + 3 * 100 + 3640), 3);
  EXPECT_EQ(layers(6000 + 4 * 100 + 3640), 4);
}

TEST(ActivationBudget, WhatABlockKeepsBesidesGoesWithIt) {
  ActivationNeed need{.micro_batch_tokens = 5, .value_bytes = 2};
  const int64_t bare = plan_activations(small(false), need, int64_t{1} << 40).needed_bytes;
  need.more_bytes_per_token = 3;
  need.more_bytes = 1000;
  EXPECT_EQ(plan_activations(small(false), need, int64_t{1} << 40).needed_bytes, bare + 4 * (15 + 1000));
  // All recomputed: one at a time keeps it.
  EXPECT_EQ(plan_activations(small(false), need, 10).needed_bytes, 3640 + 15 + 1000 + 4 * 100);
}

TEST(ActivationBudget, SaysWhenNothingSuffices) {
  const ActivationPlan plan = plan_activations(small(false), {.micro_batch_tokens = 5, .trained_weights = 1000}, 100);
  EXPECT_EQ(plan.recomputed_layers, 4);
  EXPECT_FALSE(plan.fits);
  EXPECT_THAT(describe(plan, small(false), 100), HasSubstr("may not suffice"));
  EXPECT_THAT(describe(plan, small(false), 100), HasSubstr("4 of 4 blocks"));
}

// Worked out in the large: Gemma 2B in bf16 at 8,192 tokens keeps 61,952 values a token in each of 18 blocks, 17 GiB.
TEST(ActivationBudget, OfGemma2B) {
  const GemmaConfig config = *find_preset("gemma-2b");
  EXPECT_EQ(kept_values_per_token(config), 4 * 2048 + 2 * 2048 + 2 * 256 + 3 * 16'384);
  const ActivationNeed need{
      .micro_batch_tokens = 8192, .value_bytes = 2, .trained_weights = 2'506'172'416, .weight_bytes = 2};
  EXPECT_EQ(plan_activations(config, need, int64_t{70} << 30).recomputed_layers, 0);
  EXPECT_EQ(plan_activations(config, need, int64_t{17} << 30).recomputed_layers, 18);
}

}  // namespace
}  // namespace gemma_sft
