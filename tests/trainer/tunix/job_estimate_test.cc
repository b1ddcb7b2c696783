#include "trainer/tunix/job_estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"

namespace gemma_sft {
namespace {

// Gemma-7B has 8,537,680,896 parameters: 16 bytes each are 136.6 of tpu-v3-8's 137.4 GB and 8 bytes each are 68.3 of
// tpu-v2-8's 68.7 GB, both before any activation.
JobEstimate of_7b(const RunConfig& config, const PriceTable& prices = built_in_prices()) {
  return estimate_job({.config = config,
                       .model = find_published_shape("google/gemma-7b-it"),
                       .rows = 1000,
                       .steps = 315,
                       .tokens_per_epoch = 100'000,
                       .longest_row = 128},
                      prices);
}

TEST(JobEstimate, SaysWhichAcceleratorsHoldGemma7b) {
  RunConfig config;
  config.model.accelerator = "tpu-v3-8";
  config.training.batch_size = 16;
  config.training.num_epochs = 5;
  const JobEstimate fp32 = of_7b(config);
  EXPECT_EQ(fp32.parameters, 8'537'680'896);
  EXPECT_FALSE(fp32.find_memory("tpu-v3-8")->fits);
  EXPECT_FALSE(fp32.find_memory("tpu-v2-8")->fits);
  EXPECT_TRUE(fp32.find_memory("tpu-v3-32")->fits);
  config.training.precision = Precision::kBf16;
  const JobEstimate bf16 = of_7b(config);
  EXPECT_TRUE(bf16.find_memory("tpu-v3-8")->fits);
  EXPECT_FALSE(bf16.find_memory("tpu-v2-8")->fits);
  config.lora.rank = 16;
  EXPECT_TRUE(of_7b(config).find_memory("tpu-v3-8")->fits);
  EXPECT_EQ(bf16.tokens, 500'000);
  EXPECT_EQ(bf16.final_model_bytes, 2.0 * 8'537'680'896);
}

TEST(JobEstimate, TriesTheAdviceOfTheGuideOnTheRun) {
  RunConfig config;
  config.model.accelerator = "tpu-v3-8";
  config.training.batch_size = 16;
  const std::vector<std::string> fp32 = of_7b(config).advice;
  ASSERT_EQ(fp32.size(), 3u);
  EXPECT_TRUE(fp32[0].starts_with("out of quota, take tpu-v2-8: it does not hold this run (")) << fp32[0];
  EXPECT_TRUE(fp32[1].starts_with("out of memory, take tpu-v3-32: it holds this run (")) << fp32[1];
  EXPECT_NE(fp32[2].find("tpu-v3-8 does not hold this run"), std::string::npos) << fp32[2];
  config.training.precision = Precision::kBf16;
  config.training.batch_size = 4;
  const std::vector<std::string> bf16 = of_7b(config).advice;
  ASSERT_EQ(bf16.size(), 2u);
  EXPECT_TRUE(bf16[0].starts_with("out of quota, take tpu-v2-8: it does not hold this run (")) << bf16[0];
  config.model.accelerator = "tpu-v9";
  EXPECT_TRUE(of_7b(config).advice.empty());
}

TEST(JobEstimate, WhereAJobDoesNotSayWhatItComputesInItIsWhatTheAcceleratorTakes) {
  RunConfig config;
  config.model.accelerator = "tpu-v3-8";
  const double unsaid = of_7b(config).find_memory("tpu-v3-8")->needed_bytes_per_core;
  config.training.precision = Precision::kBf16Mixed;
  EXPECT_EQ(of_7b(config).find_memory("tpu-v3-8")->needed_bytes_per_core, unsaid);
  config.training.precision = Precision::kFp32;
  EXPECT_GT(of_7b(config).find_memory("tpu-v3-8")->needed_bytes_per_core, unsaid);
}

TEST(JobEstimate, TokensFollowFromTheEpochsOrFromTheSteps) {
  RunConfig config;  // 1000 rows with 100,000 tokens, none longer than 128
  config.training.num_epochs = 2;
  config.training.batch_tokens = 512;
  EXPECT_EQ(of_7b(config).tokens, 200'000);
  config.training.gradient_accumulation_steps = 2;
  config.training.max_steps = 10;
  EXPECT_EQ(of_7b(config).tokens, 10 * 2 * 512);
  config.training.batch_tokens.reset();
  config.training.batch_size = 10;
  config.training.max_steps = 50;
  EXPECT_EQ(of_7b(config).tokens, 100'000);
}

TEST(JobEstimate, CountsTheMatricesOfTheLayersThatAreMeantAndOfNoOthers) {
  const GemmaConfig model = *find_published_shape("google/gemma-7b-it");  // 28 layers, 3072 wide, 16 heads of 256
  const auto count = [&](const std::vector<std::string>& targets) {
    LoraSection lora;
    lora.rank = 4;
    lora.target_modules = targets;
    return lora_parameters(lora, model);
  };
  EXPECT_EQ(count({"q_proj"}), 28 * 4 * (3072 + 4096));
  EXPECT_EQ(count({"model.layers.3.self_attn.q_proj"}), 4 * (3072 + 4096));
  EXPECT_EQ(count({"*.3.mlp.*"}), 3 * 4 * (3072 + 24576));
  EXPECT_EQ(count({"*.q_proj", "q_proj"}), count({"q_proj"}));
}

TEST(JobEstimate, WithoutASpeedTimeAndCostAreLeftOutAndThatIsSaid) {
  RunConfig config;
  config.model.accelerator = "tpu-v3-8";
  PriceTable prices = built_in_prices();
  for (Accelerator& accelerator : prices.accelerators) accelerator.peak_flops_per_core = 0;
  const JobEstimate estimate = of_7b(config, prices);
  EXPECT_FALSE(estimate.hours);
  EXPECT_FALSE(estimate.usd);
  EXPECT_TRUE(estimate.tokens);
  EXPECT_THAT(estimate.assumptions,
              testing::Contains("the price table has no speed for tpu-v3-8: time and cost are left out"));
}

TEST(JobEstimate, TheCostLimitRefusesWhatMayCostMoreAndWhatIsNotKnown) {
  RunConfig config;
  config.model.accelerator = "tpu-v3-8";
  const JobEstimate estimate = of_7b(config);
  ASSERT_TRUE(estimate.usd);
  require_affordable(estimate, config);
  config.tunix.max_cost_usd = estimate.usd->high + 0.01;
  require_affordable(estimate, config);
  config.tunix.max_cost_usd = estimate.usd->high - 0.01;
  EXPECT_THROW(require_affordable(estimate, config), Error);
  config.tunix.max_cost_usd = 1000;
  config.model.accelerator = "tpu-v9";
  EXPECT_THROW(require_affordable(of_7b(config), config), Error);
}

}  // namespace
}  // namespace gemma_sft
