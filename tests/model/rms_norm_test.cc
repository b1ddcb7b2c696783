#include "model/rms_norm.h"

#include <gtest/gtest.h>

#include "tests/model/reference_values.h"
#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

TEST(RmsNorm, EqualsTransformersForwardAndBackwardInFp32) {
  const at::Tensor x = tensor_of(kNormInput, {3, 8}).requires_grad_(true);
  const at::Tensor weight = tensor_of(kNormWeight, {8}).requires_grad_(true);
  const at::Tensor output = rms_norm(x, weight, 1e-6);
  EXPECT_LE(largest_difference(output, tensor_of(kNormOutput, {3, 8})), 5e-7);
  output.backward(tensor_of(kNormOutputGradient, {3, 8}));
  EXPECT_LE(largest_difference(x.grad(), tensor_of(kNormInputGradient, {3, 8})), 5e-7);
  EXPECT_LE(largest_difference(weight.grad(), tensor_of(kNormWeightGradient, {8})), 1e-6);
}

// 1 + w in bf16, or a product in bf16, would round differently: every value is equal only when the cast comes last.
TEST(RmsNorm, EqualsTransformersToTheBitInBf16) {
  const at::Tensor output =
      rms_norm(tensor_of(kNormInput, {3, 8}).to(at::kBFloat16), tensor_of(kNormWeight, {8}).to(at::kBFloat16), 1e-6);
  EXPECT_EQ(output.scalar_type(), at::kBFloat16);
  EXPECT_EQ(largest_difference(output, tensor_of(kNormOutputBf16, {3, 8})), 0.0);
}

// fp64 has no kernels: it goes through LibTorch's operators, as tensors on a GPU do.
TEST(RmsNorm, EqualsTransformersThroughLibTorchsOperators) {
  const at::Tensor x = tensor_of(kNormInput, {3, 8}).to(at::kDouble).requires_grad_(true);
  const at::Tensor weight = tensor_of(kNormWeight, {8}).requires_grad_(true);
  const at::Tensor output = rms_norm(x, weight, 1e-6);
  EXPECT_LE(largest_difference(output, tensor_of(kNormOutput, {3, 8})), 5e-7);
  output.backward(tensor_of(kNormOutputGradient, {3, 8}).to(at::kDouble));
  EXPECT_LE(largest_difference(x.grad(), tensor_of(kNormInputGradient, {3, 8})), 5e-7);
  EXPECT_LE(largest_difference(weight.grad(), tensor_of(kNormWeightGradient, {8})), 1e-6);
}

TEST(RmsNorm, AZeroRowGivesZeroAndFiniteGradients) {
  const at::Tensor x = tensor_of({0, 0, 0, 0}, {1, 4}).requires_grad_(true);
  const at::Tensor output = rms_norm(x, tensor_of({0.5, 0.5, 0.5, 0.5}, {4}), 1e-6);
  EXPECT_EQ(output.abs().max().item<float>(), 0.0f);
  output.sum().backward();
  EXPECT_NEAR(x.grad().max().item<double>(), 1.5 * 1000.0, 0.01);  // 1.5 / sqrt(1e-6)
}

}  // namespace
}  // namespace gemma_sft
