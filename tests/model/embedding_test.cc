#include "model/embedding.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "tests/model/reference_values.h"
#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

at::Tensor ids(std::vector<int64_t> values) {
  return at::tensor(at::IntArrayRef(values), at::TensorOptions().dtype(at::kLong));
}

TEST(Embedding, TheScaleIsRoundedToTheComputeDtype) {
  for (const EmbeddingScale& expected : kEmbeddingScales) {
    EXPECT_NEAR(embedding_scale(expected.hidden_size, at::kFloat), expected.exact, 1e-5);
    EXPECT_EQ(embedding_scale(expected.hidden_size, at::kBFloat16), expected.bf16) << expected.hidden_size;
  }
}

TEST(Embedding, GivesRowsInTheComputeDtype) {
  const at::Tensor weight = tensor_of({0, 0, 1, 2, 3, 4}, {3, 2});
  const at::Tensor rows = embed(ids({2, 1, 2}), weight, at::kBFloat16, 0);
  EXPECT_EQ(rows.scalar_type(), at::kBFloat16);
  EXPECT_EQ(largest_difference(rows, tensor_of({3, 4, 1, 2, 3, 4}, {3, 2})), 0.0);
}

TEST(Embedding, AddsItsGradientToTheOneOfTheTiedHead) {
  const at::Tensor weight = tensor_of({1, 1, 1, 1, 1, 1}, {3, 2}).requires_grad_(true);
  const at::Tensor rows = embed(ids({2, 1, 2}), weight, at::kFloat, 0);
  // Each row times the head: the head's gradient of row v is the sum of all rows (3, 3), the lookup's is 3 per use.
  at::mm(rows, weight.t()).sum().backward();
  EXPECT_EQ(largest_difference(weight.grad(), tensor_of({3, 3, 6, 6, 9, 9}, {3, 2})), 0.0);
}

TEST(Embedding, ThePadIdGetsNoGradientFromTheLookup) {
  const at::Tensor weight = tensor_of({1, 1, 1, 1}, {2, 2}).requires_grad_(true);
  embed(ids({0, 1, 0}), weight, at::kFloat, 0).sum().backward();
  EXPECT_EQ(largest_difference(weight.grad(), tensor_of({0, 0, 1, 1}, {2, 2})), 0.0);
}

TEST(Embedding, ThePadIdIsTheOneOfTheConfigAndMayBeNone) {
  const at::Tensor weight = tensor_of({1, 1, 1, 1}, {2, 2}).requires_grad_(true);
  embed(ids({0, 1, 0}), weight, at::kFloat, 1).sum().backward();
  EXPECT_EQ(largest_difference(weight.grad(), tensor_of({2, 2, 0, 0}, {2, 2})), 0.0);
  embed(ids({0, 1, 0}), weight, at::kFloat, std::nullopt).sum().backward();
  EXPECT_EQ(largest_difference(weight.grad(), tensor_of({4, 4, 1, 1}, {2, 2})), 0.0);
}

TEST(Embedding, AFrozenWeightGetsNoGradient) {
  const at::Tensor weight = tensor_of({1, 1, 1, 1}, {2, 2});
  EXPECT_FALSE(embed(ids({1}), weight, at::kFloat, 0).requires_grad());
}

}  // namespace
}  // namespace gemma_sft
