// Against values worked out by hand from the published shapes.
#include "model/training_flops.h"

#include <gtest/gtest.h>

namespace gemma_sft {
namespace {

double per_token(const char* preset, int64_t length) {
  return training_flops(*find_preset(preset), {length}) / static_cast<double>(length) / 1e9;
}

// Gemma 2B: 1.982e9 weights in blocks and 0.524e9 in the head, times 6, and 12 * 18 layers * 2048 * 1024.5 keys.
TEST(TrainingFlops, OfTheShapesOfGemmaPerTokenOfFullAndOfLongDocuments) {
  EXPECT_NEAR(per_token("gemma-2b", 2048), 15.49, 0.01);
  EXPECT_NEAR(per_token("gemma-2b", 8192), 16.85, 0.01);
  EXPECT_NEAR(per_token("gemma-7b", 2048), 52.64, 0.02);
  EXPECT_NEAR(per_token("gemma-7b", 8192), 56.86, 0.02);
  EXPECT_NEAR(per_token("gemma-2-2b", 2048), 16.34, 0.01);
  EXPECT_NEAR(per_token("gemma-2-2b", 8192), 17.97, 0.02);  // every other layer has a window of 4096
  EXPECT_NEAR(per_token("gemma-2-9b", 2048), 57.56, 0.02);
  EXPECT_NEAR(per_token("gemma-3-1b", 2048), 6.17, 0.02);
  EXPECT_NEAR(per_token("gemma-3-4b", 2048), 23.95, 0.03);
}

// One layer of one head and dimension, window 2, document of 4: queries see 1, 2, 2 and 2 keys.
TEST(TrainingFlops, CountsThePairsThatAWindowLeavesAndNoneBetweenDocuments) {
  GemmaConfig config;
  config.num_layers = 1;
  config.num_heads = config.head_dim = 1;
  config.sliding_window = 2;
  config.layer_kinds = {LayerKind::kSliding};
  EXPECT_EQ(training_flops(config, {4}), 12 * 7);
  EXPECT_EQ(training_flops(config, {1}), 12 * 1);
  EXPECT_EQ(training_flops(config, {4, 1}), 12 * 8);
  config.layer_kinds = {LayerKind::kGlobal};
  EXPECT_EQ(training_flops(config, {4}), 12 * 10);
}

TEST(TrainingFlops, AnAdapterTakesFourPerWeightOfTheBaseAndSixOfItsOwn) {
  GemmaConfig config;
  config.vocab_size = 10;
  config.hidden_size = 3;
  EXPECT_EQ(training_flops(config, {2}), 2 * 6 * 30);
  EXPECT_EQ(training_flops(config, {2}, 7), 2 * (4 * 30 + 6 * 7));
}

// peft's print_trainable_parameters says 19,611,648 for rank 16 on all seven linear layers of Gemma 2B.
TEST(TrainingFlops, WeightsOfAnAdapterAreThoseThatPeftCounts) {
  EXPECT_EQ(adapter_weights(*find_preset("gemma-2b"), 16), 19'611'648);
}

}  // namespace
}  // namespace gemma_sft
