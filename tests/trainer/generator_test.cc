#include "trainer/generator.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "configs/error.h"
#include "model/device_batch.h"
#include "tests/trainer/tiny_run.h"

namespace gemma_sft {
namespace {

at::Tensor logits(const std::vector<double>& values) {
  return at::tensor(at::ArrayRef<double>(values), at::TensorOptions().dtype(at::kDouble)).to(at::kFloat);
}

std::map<int64_t, double> shares(const SamplingOptions& options, const at::Tensor& values, int draws = 20000) {
  Sampler sampler(options);
  std::map<int64_t, double> counts;
  for (int i = 0; i < draws; ++i) counts[sampler.choose(values)] += 1.0 / draws;
  return counts;
}

// Probabilities 0.5, 0.25, 0.15, 0.1 in another order of ids.
const std::vector<double> kLogits = {std::log(0.15), std::log(0.5), std::log(0.1), std::log(0.25)};

TEST(SamplerTest, without_temperature_it_takes_the_most_probable) { EXPECT_EQ(Sampler({}).choose(logits(kLogits)), 1); }

TEST(SamplerTest, draws_by_probability) {
  const auto found = shares({.temperature = 1}, logits(kLogits));
  EXPECT_NEAR(found.at(0), 0.15, 0.01);
  EXPECT_NEAR(found.at(1), 0.5, 0.01);
  EXPECT_NEAR(found.at(2), 0.1, 0.01);
  EXPECT_NEAR(found.at(3), 0.25, 0.01);
}

TEST(SamplerTest, temperature_divides_the_logits) {
  // Temperature 0.5 squares the probabilities: 0.25, 0.0625, 0.0225, 0.01 over 0.345.
  const auto found = shares({.temperature = 0.5}, logits(kLogits));
  EXPECT_NEAR(found.at(1), 0.25 / 0.345, 0.01);
  EXPECT_NEAR(found.at(3), 0.0625 / 0.345, 0.01);
}

TEST(SamplerTest, top_k_and_top_p_cut_the_tail_and_scale_up_the_rest) {
  const auto two = shares({.temperature = 1, .top_k = 2}, logits(kLogits));
  EXPECT_EQ(two.size(), 2u);
  EXPECT_NEAR(two.at(1), 0.5 / 0.75, 0.01);
  const auto most = shares({.temperature = 1, .top_p = 0.8}, logits(kLogits));  // 0.5 + 0.25 < 0.8: a third is needed
  EXPECT_EQ(most.size(), 3u);
  EXPECT_NEAR(most.at(0), 0.15 / 0.9, 0.01);
  EXPECT_EQ(shares({.temperature = 1, .top_p = 1e-9}, logits(kLogits)).size(), 1u);
}

TEST(SamplerTest, of_equally_probable_tokens_top_k_keeps_those_with_the_lowest_ids) {
  std::vector<double> values(300, 0.0);
  values[7] = -1;
  std::vector<int64_t> ids;
  for (const auto& [id, share] : shares({.temperature = 1, .top_k = 9}, logits(values))) ids.push_back(id);
  EXPECT_EQ(ids, (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 8, 9}));
}

TEST(SamplerTest, the_same_seed_draws_the_same) {
  const auto draw = [&](uint64_t seed) {
    Sampler sampler({.temperature = 1, .seed = seed});
    std::vector<int64_t> ids;
    for (int i = 0; i < 20; ++i) ids.push_back(sampler.choose(logits(kLogits)));
    return ids;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(SamplerTest, logits_that_are_no_numbers_are_an_error) {
  EXPECT_THROW(Sampler({}).choose(logits({1.0, std::nan(""), 2.0})), Error);
}

class GeneratorTest : public ::testing::Test {
 protected:
  GeneratorTest() : model_(load_tiny_model(tiny_)) { model_.set_training(false); }
  std::vector<int64_t> greedy(const GenerationLimits& limits) {
    Sampler sampler({});
    return generate_tokens(model_, {2, 106, 300, 301, 302}, limits, sampler);
  }
  // The same without any cache: the whole text through the training forward pass for each token.
  std::vector<int64_t> greedy_without_cache(int64_t count) {
    const c10::NoGradGuard no_grad;
    std::vector<int64_t> ids = {2, 106, 300, 301, 302};
    for (int64_t i = 0; i < count; ++i) {
      PackedBatch batch;
      const auto tokens = static_cast<int64_t>(ids.size());
      batch.input_ids = ids;
      batch.targets.assign(ids.size(), -1);
      for (int64_t p = 0; p < tokens; ++p) batch.positions.push_back(p);
      batch.document_offsets = {0, tokens};
      batch.document_lengths = {tokens};
      const at::Tensor hidden = model_.forward(to_device(batch, c10::Device(c10::kCPU)));
      ids.push_back(model_.logits(hidden.narrow(0, tokens - 1, 1)).argmax().item<int64_t>());
    }
    return {ids.begin() + 5, ids.end()};
  }

  TinyRun tiny_;
  Gemma model_;
};

TEST_F(GeneratorTest, the_cache_changes_no_token_also_past_the_window) {
  // The window of the tiny model's local layer is 8 tokens.
  EXPECT_EQ(greedy({.max_new_tokens = 30}), greedy_without_cache(30));
}

TEST_F(GeneratorTest, ends_with_the_first_stop_token_which_is_part_of_the_result) {
  const std::vector<int64_t> all = greedy({.max_new_tokens = 30});
  const std::vector<int64_t> stopped = greedy({.max_new_tokens = 30, .stop_ids = {all[4]}});
  const auto first = std::find(all.begin(), all.end(), all[4]);
  EXPECT_EQ(stopped, std::vector<int64_t>(all.begin(), first + 1));
}

TEST_F(GeneratorTest, an_empty_prompt_is_an_error) {
  Sampler sampler({});
  EXPECT_THROW(generate_tokens(model_, {}, {}, sampler), Error);
}

}  // namespace
}  // namespace gemma_sft
