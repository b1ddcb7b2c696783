#include "model/chunked_cross_entropy.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "configs/error.h"
#include "tests/model/counting_allocator.h"
#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

at::Tensor random(at::IntArrayRef sizes, double deviation, uint64_t seed) {
  return at::empty(sizes, at::TensorOptions().dtype(at::kFloat))
      .normal_(0, deviation, at::Generator(at::detail::createCPUGenerator(seed)));
}

at::Tensor integers(std::vector<int64_t> values) {
  return at::tensor(at::IntArrayRef(values), at::TensorOptions().dtype(at::kLong));
}

at::Tensor random_ids(int64_t high, int64_t count, uint64_t seed) {
  return at::randint(high, {count}, at::Generator(at::detail::createCPUGenerator(seed)),
                     at::TensorOptions().dtype(at::kLong));
}

// All logits at once, in fp64, through LibTorch's own loss.
at::Tensor textbook(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& rows,
                    const at::Tensor& targets, std::optional<double> softcap) {
  at::Tensor logits = at::matmul(hidden.to(at::kDouble).index_select(0, rows), weight.to(at::kDouble).t());
  if (softcap) logits = logits.div(*softcap).tanh().mul(*softcap);
  return at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum);
}

struct Case {
  std::optional<double> softcap;
  int64_t chunk_tokens;
  at::ScalarType dtype = at::kFloat;
};

class CrossEntropy : public ::testing::TestWithParam<Case> {};

TEST_P(CrossEntropy, EqualsTheTextbookForwardAndBackward) {
  const at::Tensor hidden = random({23, 16}, 2.0, 1).to(GetParam().dtype).requires_grad_(true),
                   weight = random({101, 16}, 1.0, 2).requires_grad_(true);
  const at::Tensor rows = integers({0, 1, 2, 5, 7, 8, 9, 13, 14, 15, 16, 20, 22}), targets = random_ids(101, 13, 3);
  const at::Tensor loss =
      chunked_cross_entropy(hidden, weight, rows, targets, {GetParam().softcap, GetParam().chunk_tokens});
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  loss.mul(0.25).backward();
  const at::Tensor hidden_gradient = hidden.grad(), weight_gradient = weight.grad();
  hidden.mutable_grad().reset();
  weight.mutable_grad().reset();

  const at::Tensor expected = textbook(hidden, weight, rows, targets, GetParam().softcap);
  EXPECT_LE(relative_difference(loss, expected), 1e-6);
  expected.mul(0.25).backward();
  EXPECT_LE(relative_difference(hidden_gradient, hidden.grad()), 3e-6);
  EXPECT_LE(relative_difference(weight_gradient, weight.grad()), 3e-6);
  // Rows that are no target get no gradient.
  EXPECT_EQ(hidden_gradient.index_select(0, integers({3, 4, 6, 21})).abs().max().item<float>(), 0.0f);
}

INSTANTIATE_TEST_SUITE_P(Cases, CrossEntropy,
                         ::testing::Values(Case{{}, 0}, Case{{}, 1}, Case{{}, 5}, Case{{}, 13}, Case{4.0, 0},
                                           Case{4.0, 5}, Case{30.0, 1},
                                           // No kernels for fp64: LibTorch's operators, as on a GPU.
                                           Case{{}, 5, at::kDouble}, Case{4.0, 5, at::kDouble}));

TEST(CrossEntropyByHand, EqualLogitsCostTheLogarithmOfTheVocabulary) {
  const at::Tensor hidden = at::zeros({3, 4}), weight = random({50, 4}, 1.0, 1);
  const at::Tensor loss = chunked_cross_entropy(hidden, weight, integers({0, 2}), integers({7, 0}), {});
  EXPECT_NEAR(loss.item<double>(), 2 * std::log(50.0), 1e-5);
}

TEST(CrossEntropyByHand, HugeLogitsStayFinite) {
  const at::Tensor hidden = tensor_of({1000, -1000}, {2, 1}).requires_grad_(true);
  const at::Tensor weight = tensor_of({1, 0, -1}, {3, 1});
  const at::Tensor loss = chunked_cross_entropy(hidden, weight, integers({0, 1}), integers({2, 2}), {});
  EXPECT_NEAR(loss.item<double>(), 2000.0, 1e-3);  // 1000 - (-1000), and 0
  loss.backward();
  EXPECT_LE(largest_difference(hidden.grad(), tensor_of({2, 0}, {2, 1})), 1e-30);
}

TEST(CrossEntropyByHand, NoTargetGivesAZeroTiedToBoth) {
  const at::Tensor hidden = random({3, 4}, 1, 1).requires_grad_(true),
                   weight = random({5, 4}, 1, 2).requires_grad_(true);
  const at::Tensor none = at::empty({0}, at::TensorOptions().dtype(at::kLong));
  const at::Tensor loss = chunked_cross_entropy(hidden, weight, none, none, {});
  EXPECT_EQ(loss.item<float>(), 0.0f);
  loss.backward();
  EXPECT_EQ(hidden.grad().abs().max().item<float>(), 0.0f);
  EXPECT_EQ(weight.grad().abs().max().item<float>(), 0.0f);
}

TEST(CrossEntropyByHand, AFrozenHeadGetsNoGradientAndCostsNone) {
  const at::Tensor hidden = random({64, 8}, 1, 1).requires_grad_(true), weight = random({50000, 8}, 1, 2);
  const at::Tensor rows = at::arange(64, at::TensorOptions().dtype(at::kLong)), targets = random_ids(50000, 64, 3);
  CountingAllocator memory;
  const int64_t before = memory.held();
  chunked_cross_entropy(hidden, weight, rows, targets, {.chunk_tokens = 4}).backward();
  EXPECT_FALSE(weight.grad().defined());
  EXPECT_LT(memory.peak() - before, 4 * 50000 * 4 + 200'000);  // one chunk; the weight's gradient would be 1.6 MB
}

TEST(CrossEntropyByHand, BackwardTwiceIsRefused) {
  const at::Tensor hidden = random({3, 4}, 1, 1).requires_grad_(true), weight = random({5, 4}, 1, 2);
  const at::Tensor loss = chunked_cross_entropy(hidden, weight, integers({0}), integers({1}), {});
  loss.backward({}, /*retain_graph=*/true);
  EXPECT_THROW(loss.backward(), Error);
}

TEST(CrossEntropyByHand, TheLossThatBackwardStartsFromTakesNoFactor) {
  const at::Tensor hidden = random({3, 4}, 1, 1).requires_grad_(true),
                   weight = random({5, 4}, 1, 2).requires_grad_(true);
  const at::Tensor rows = integers({0, 2}), targets = integers({1, 4});
  chunked_cross_entropy(hidden, weight, rows, targets, {}).backward();
  const at::Tensor hidden_gradient = hidden.grad(), weight_gradient = weight.grad();
  hidden.mutable_grad().reset();
  weight.mutable_grad().reset();
  chunked_cross_entropy(hidden, weight, rows, targets, {.backward_starts_here = true}).backward();
  EXPECT_TRUE(hidden.grad().equal(hidden_gradient));
  EXPECT_TRUE(weight.grad().equal(weight_gradient));
  const at::Tensor loss = chunked_cross_entropy(hidden, weight, rows, targets, {.backward_starts_here = true});
  EXPECT_THROW(loss.mul(0.5).backward(), Error);
}

// bf16 compute with fp32 masters: the gradient arrives in fp32 and is summed in fp32 over the chunks.
TEST(CrossEntropyByHand, MixedPrecisionGivesAWideWeightGradient) {
  const at::Tensor hidden = random({40, 16}, 1.0, 1).to(at::kBFloat16).requires_grad_(true);
  const at::Tensor weight = random({300, 16}, 1.0, 2).requires_grad_(true);
  const at::Tensor rows = at::arange(40, at::TensorOptions().dtype(at::kLong)), targets = random_ids(300, 40, 3);
  const at::Tensor loss = chunked_cross_entropy(hidden, weight, rows, targets, {.chunk_tokens = 7});
  loss.backward();
  EXPECT_EQ(weight.grad().scalar_type(), at::kFloat);
  EXPECT_EQ(hidden.grad().scalar_type(), at::kBFloat16);
  const at::Tensor weight_gradient = weight.grad();
  weight.mutable_grad().reset();
  const at::Tensor expected = textbook(hidden, weight.to(at::kBFloat16), rows, targets, {});
  expected.backward();
  EXPECT_LE(relative_difference(loss, expected), 2e-3);
  EXPECT_LE(relative_difference(weight_gradient, weight.grad()), 2e-2);
}

// The promise of the header with Gemma 3's vocabulary: a chunk of logits, and the gradients of hidden and weight.
TEST(CrossEntropyMemory, IsOneChunkAndTheGradientsWhateverTheTokens) {
  constexpr int64_t kVocabulary = 262'144, kWidth = 32, kChunk = 32;
  const at::Tensor weight = random({kVocabulary, kWidth}, 0.05, 1).requires_grad_(true);
  CountingAllocator memory;
  for (const std::optional<double> softcap : {std::optional<double>(), std::optional<double>(30.0)}) {
    std::vector<int64_t> beyond;
    for (const int64_t tokens : {128, 256}) {
      const at::Tensor hidden = random({tokens, kWidth}, 1.0, 2).requires_grad_(true);
      const at::Tensor rows = at::arange(tokens, at::TensorOptions().dtype(at::kLong)),
                       targets = random_ids(kVocabulary, tokens, 3);
      const int64_t before = memory.held();
      memory.reset_peak();
      chunked_cross_entropy(hidden, weight, rows, targets, {softcap, kChunk}).backward();
      beyond.push_back(memory.peak() - before - kVocabulary * kWidth * 4 - tokens * kWidth * 4);
      weight.mutable_grad().reset();
    }
    const int64_t chunk = kChunk * kVocabulary * 4;
    EXPECT_LT(beyond[0], chunk + (1 << 21));
    EXPECT_LT(std::abs(beyond[1] - beyond[0]), 1 << 18);
  }
}

TEST(CrossEntropyMemory, WithoutGradModeNothingButTheChunkIsHeld) {
  const at::Tensor weight = random({50000, 8}, 0.05, 1).requires_grad_(true), hidden = random({64, 8}, 1.0, 2);
  const at::Tensor rows = at::arange(64, at::TensorOptions().dtype(at::kLong)), targets = random_ids(50000, 64, 3);
  at::NoGradGuard no_grad;
  CountingAllocator memory;
  const int64_t before = memory.held();
  const at::Tensor loss = chunked_cross_entropy(hidden, weight, rows, targets, {.chunk_tokens = 4});
  EXPECT_FALSE(loss.requires_grad());
  EXPECT_LT(memory.peak() - before, 4 * 50000 * 4 + 200'000);
}

}  // namespace
}  // namespace gemma_sft
