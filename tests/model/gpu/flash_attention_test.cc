// Flash attention is LibTorch's and needs a GPU. What is ours, which arguments go into it and what comes back, is
// tested here: a plain implementation of its documented meaning is registered as LibTorch's operator for the CPU, and a
// model's attention through it must equal our own blocks.
#include "model/gpu/flash_attention.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tril.h>
#include <ATen/ops/triu.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/library.h>

#include <chrono>
#include <limits>
#include <thread>

#include "configs/error.h"
#include "model/device_batch.h"
#include "model/gpu/attention_times.h"
#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Optional;

int forward_calls = 0, backward_calls = 0;

// How long LibTorch's operator seems to take: as long as this one does, no time (and no right result), or longer.
enum class Pace { kPlain, kInstant, kSlow };
Pace pace = Pace::kPlain;

// One document by softmax(scale q k^T + mask) v in fp64, every head with its key head: query i of n sees the keys from
// i - left to i + right, causal from the start to i.
at::Tensor attend_document(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, bool is_causal,
                           double scale, std::optional<int64_t> left, std::optional<int64_t> right) {
  const int64_t group = query.size(1) / key.size(1), length = query.size(0);
  const at::Tensor q = query.to(at::kDouble).transpose(0, 1);
  const at::Tensor k = key.to(at::kDouble).repeat_interleave(group, 1).transpose(0, 1);
  const at::Tensor v = value.to(at::kDouble).repeat_interleave(group, 1).transpose(0, 1);
  at::Tensor visible = at::full({length, length}, 1.0, q.options());
  if (is_causal) visible = at::tril(visible);
  if (left) visible = at::triu(visible, -*left);
  if (right) visible = at::tril(visible, *right);
  const at::Tensor scores =
      at::matmul(q, k.transpose(1, 2)).mul(scale).masked_fill(visible.eq(0), -std::numeric_limits<double>::infinity());
  return at::matmul(scores.softmax(-1), v).transpose(0, 1);
}

at::Tensor attend_all(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                      const at::Tensor& offsets, bool is_causal, double scale, std::optional<int64_t> left,
                      std::optional<int64_t> right) {
  const int32_t* offset = offsets.const_data_ptr<int32_t>();
  std::vector<at::Tensor> outputs;
  for (int64_t i = 0; i + 1 < offsets.size(0); ++i) {
    const int64_t length = offset[i + 1] - offset[i];
    outputs.push_back(attend_document(query.narrow(0, offset[i], length), key.narrow(0, offset[i], length),
                                      value.narrow(0, offset[i], length), is_causal, scale, left, right));
  }
  return at::cat(outputs);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> forward_on_cpu(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const std::optional<at::Tensor>& offsets_q,
    const std::optional<at::Tensor>& offsets_k, int64_t longest_q, int64_t longest_k, double dropout, bool is_causal,
    bool, std::optional<double> scale, std::optional<int64_t> left, std::optional<int64_t> right,
    const std::optional<at::Tensor>&, const std::optional<at::Tensor>&) {
  ++forward_calls;
  EXPECT_EQ(offsets_q->scalar_type(), at::kInt);
  EXPECT_TRUE(offsets_q->equal(*offsets_k));
  EXPECT_EQ(longest_q, longest_k);
  EXPECT_EQ(longest_q, offsets_q->diff().max().item<int64_t>());
  EXPECT_EQ(dropout, 0.0);
  if (pace == Pace::kSlow) std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const at::Tensor output =
      pace == Pace::kInstant ? query : attend_all(query, key, value, *offsets_q, is_causal, *scale, left, right);
  const at::Tensor marker = at::full({1}, 7.0);
  return {output.to(query.scalar_type()), marker, marker.add(1), marker.add(2), at::empty({0})};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_on_cpu(
    const at::Tensor& gradient, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const at::Tensor& output, const at::Tensor& log_sums, const at::Tensor& offsets, const at::Tensor&, int64_t,
    int64_t, double, bool is_causal, const at::Tensor& random, const at::Tensor& unused, std::optional<double> scale,
    std::optional<int64_t> left, std::optional<int64_t> right) {
  ++backward_calls;
  // What the forward pass gave is handed back in its places.
  EXPECT_EQ(log_sums.item<float>(), 7.0f);
  EXPECT_EQ(random.item<float>(), 8.0f);
  EXPECT_EQ(unused.item<float>(), 9.0f);
  EXPECT_EQ(output.sizes(), query.sizes());
  if (pace == Pace::kInstant) return {query, key, value};
  // Kernels run below autograd; this one wants its own.
  const c10::impl::ForceDispatchKeyGuard above(c10::default_included_set, c10::default_excluded_set);
  at::AutoGradMode with_grad(true);
  std::vector<at::Tensor> inputs;
  for (const at::Tensor& input : {query, key, value})
    inputs.push_back(input.to(at::kDouble).detach().requires_grad_(true));
  attend_all(inputs[0], inputs[1], inputs[2], offsets, is_causal, *scale, left, right)
      .backward(gradient.to(at::kDouble));
  const auto back = [&](size_t i) { return inputs[i].grad().to(query.scalar_type()); };
  return {back(0), back(1), back(2)};
}

TORCH_LIBRARY_IMPL(aten, CPU, library) {
  library.impl("_flash_attention_forward", forward_on_cpu);
  library.impl("_flash_attention_backward", backward_on_cpu);
}

struct Outcome {
  at::Tensor output, query, key, value;
};

Outcome run(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const DeviceBatch& batch,
            const AttentionOptions& options) {
  std::vector<at::Tensor> inputs;
  for (const at::Tensor& input : {query, key, value}) inputs.push_back(input.detach().clone().requires_grad_(true));
  const at::Tensor output = attend(inputs[0], inputs[1], inputs[2], lay_out_documents(batch), options);
  output.mul(at::randn({output.size(1)}, at::TensorOptions().dtype(at::kFloat)).fill_(0.5))
      .to(at::kFloat)
      .square()
      .sum()
      .backward();
  return {output.detach().to(at::kFloat), inputs[0].grad().to(at::kFloat), inputs[1].grad().to(at::kFloat),
          inputs[2].grad().to(at::kFloat)};
}

// bf16 goes through flash attention, fp32 of the same numbers through our blocks.
TEST(FlashAttention, EqualsOurBlocksPackedAndPaddedWithAndWithoutAWindow) {
  at::manual_seed(7);
  const Documents documents = random_documents({5, 1, 17, 9}, 3);
  for (const auto& layout : {pack(documents), pad(documents)}) {
    const DeviceBatch batch = to_device(layout, at::kCPU);
    for (const int64_t kv_heads : {1, 2}) {
      const int64_t tokens = layout.tokens();
      const auto numbers = [&](int64_t heads) { return at::randn({tokens, heads, 16}).to(at::kBFloat16); };
      const at::Tensor query = numbers(4), key = numbers(kv_heads), value = numbers(kv_heads);
      for (const int64_t window : {0, 6}) {
        const AttentionOptions options{.scale = 0.3, .window = window};
        const int before = forward_calls + backward_calls;
        const Outcome flash = run(query, key, value, batch, options);
        EXPECT_EQ(forward_calls + backward_calls, before + 2);
        const Outcome blocks = run(query.to(at::kFloat), key.to(at::kFloat), value.to(at::kFloat), batch, options);
        EXPECT_EQ(forward_calls + backward_calls, before + 2);
        EXPECT_LE(relative_difference(flash.output, blocks.output), 1e-2);
        EXPECT_LE(relative_difference(flash.query, blocks.query), 2e-2);
        EXPECT_LE(relative_difference(flash.key, blocks.key), 2e-2);
        EXPECT_LE(relative_difference(flash.value, blocks.value), 2e-2);
      }
    }
  }
}

GemmaConfig windowed_and_full() {
  GemmaConfig config = tiny_gemma3();
  config.head_dim = 16;
  return config;
}

Gemma in_bf16(const GemmaConfig& config) {
  GemmaOptions narrow;
  narrow.compute_dtype = at::kBFloat16;
  return random_model(config, narrow, 5);
}

TEST(FlashAttention, AWholeModelThroughItEqualsTheOneInFp32) {
  const PackedBatch batch = pack(random_documents({5, 19, 30}, 4));
  const GemmaConfig config = windowed_and_full();
  Gemma by_blocks = random_model(config, {}, 5), by_flash = in_bf16(config);
  const int before = forward_calls;
  const LossAndGradients found = train_pass(by_flash, batch);
  EXPECT_EQ(forward_calls - before, config.num_layers);
  const LossAndGradients expected = train_pass(by_blocks, batch);
  EXPECT_NEAR(found.loss / expected.loss, 1.0, 1e-2);
}

struct WithPace {
  explicit WithPace(Pace wanted) { pace = wanted; }
  ~WithPace() { pace = Pace::kPlain; }
};

TEST(AttentionByTime, TheSlowerWayIsNotTaken) {
  const PackedBatch batch = pack(random_documents({40, 90}, 4));
  const DeviceBatch timed = to_device(batch, at::kCPU);
  const GemmaConfig config = windowed_and_full();
  Gemma model = in_bf16(config);
  const LossAndGradients before = train_pass(model, batch);
  {
    const WithPace slow(Pace::kSlow);
    model.choose_attention(timed);
  }
  EXPECT_THAT(model.describe_kernels(),
              ContainsRegex("attention: by blocks \\([0-9.]+ ms a layer, flash 2[0-9]{2}\\.[0-9]{2}\\), with a window "
                            "by blocks \\([0-9.]+ ms a layer, flash 2[0-9]{2}\\.[0-9]{2}\\)$"));
  int calls = forward_calls;
  const LossAndGradients by_blocks = train_pass(model, batch);
  EXPECT_EQ(forward_calls, calls);
  EXPECT_NEAR(by_blocks.loss / before.loss, 1.0, 1e-2);

  // Chosen anew, it is the other one.
  {
    const WithPace instant(Pace::kInstant);
    model.choose_attention(timed);
  }
  EXPECT_THAT(model.describe_kernels(), ContainsRegex("attention: flash \\([0-9.]+ ms a layer, by blocks [0-9.]+\\), "
                                                      "with a window flash \\([0-9.]+ ms a layer, by blocks"));
  calls = forward_calls;
  EXPECT_EQ(train_pass(model, batch).loss, before.loss);
  EXPECT_EQ(forward_calls - calls, config.num_layers);
}

TEST(AttentionByTime, LeavesNoTraceInTheNumbersOfARun) {
  Gemma model = in_bf16(windowed_and_full());
  const at::Tensor random = at::globalContext().defaultGenerator(at::kCPU).get_state();
  {
    const at::NoGradGuard no_grad;
    model.choose_attention(to_device(pack(random_documents({30}, 4)), at::kCPU));
  }
  EXPECT_TRUE(random.equal(at::globalContext().defaultGenerator(at::kCPU).get_state()));
  for (const Parameter& parameter : model.trainable_parameters()) EXPECT_FALSE(parameter.tensor.grad().defined());
}

TEST(AttentionByTime, NothingIsTimedWhereThereIsOneWay) {
  const int calls = forward_calls;
  for (const GemmaConfig& config : {tiny_gemma2(), windowed_and_full()}) {
    Gemma model = random_model(config, {}, 5);  // fp32
    const std::string before = model.describe_kernels();
    model.choose_attention(to_device(pack(random_documents({30}, 4)), at::kCPU));
    EXPECT_EQ(model.describe_kernels(), before);
  }
  EXPECT_EQ(forward_calls, calls);
}

TEST(AttentionByTime, FlashStaysWhereBothAreAlike) {
  EXPECT_FALSE(prefers_blocks({.flash = 1.04, .blocks = 1.0}));
  EXPECT_TRUE(prefers_blocks({.flash = 1.06, .blocks = 1.0}));
  EXPECT_FALSE(prefers_blocks({.flash = 0.5, .blocks = 1.0}));
}

TEST(FlashAttention, WhatItCannotTakeIsSaid) {
  const at::Tensor query = at::empty({4, 2, 256}, at::TensorOptions().dtype(at::kBFloat16));
  EXPECT_EQ(find_flash_obstacle(query, {}), std::nullopt);
  EXPECT_THAT(find_flash_obstacle(query, {.softcap = 50.0}), Optional(HasSubstr("soft-cap")));
  EXPECT_THAT(find_flash_obstacle(query.to(at::kFloat), {}), Optional(HasSubstr("bf16")));
  EXPECT_THAT(find_flash_obstacle(at::empty({4, 2, 264}, query.options()), {}), Optional(HasSubstr("264")));
  EXPECT_THAT(find_flash_obstacle(at::empty({4, 2, 12}, query.options()), {}), Optional(HasSubstr("12")));
}

TEST(FlashAttention, TheChoiceIsOneOfThree) {
  EXPECT_EQ(parse_attention_choice(""), AttentionChoice::kAuto);
  EXPECT_EQ(parse_attention_choice("auto"), AttentionChoice::kAuto);
  EXPECT_EQ(parse_attention_choice("flash"), AttentionChoice::kFlash);
  EXPECT_EQ(parse_attention_choice("blocks"), AttentionChoice::kBlocks);
  EXPECT_THROW(parse_attention_choice("fash"), Error);
}

}  // namespace
}  // namespace gemma_sft
