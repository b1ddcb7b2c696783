#include "model/rotary_embedding.h"

#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "tests/model/reference_values.h"
#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

class Rotary : public ::testing::Test {
 protected:
  at::Tensor positions_ = at::tensor(at::IntArrayRef(kRotaryPositions), at::TensorOptions().dtype(at::kLong));
  at::Tensor input_ = tensor_of(kRotaryInput, {6, 2, 8});

  at::Tensor rotated(at::ScalarType dtype, double theta, double factor) {
    return rotate(input_.to(dtype), rotary_table(positions_, 8, theta, factor, dtype));
  }
};

TEST_F(Rotary, EqualsTransformersUpToPosition131071) {
  EXPECT_LE(largest_difference(rotated(at::kFloat, 1e4, 1.0), tensor_of(kRotaryLocal, {6, 2, 8})), 1e-6);
  EXPECT_LE(largest_difference(rotated(at::kFloat, 1e6, 8.0), tensor_of(kRotaryGlobal, {6, 2, 8})), 1e-6);
}

// Angles in bf16 would be off by whole turns at these positions; cos and sin are rounded, products too.
TEST_F(Rotary, EqualsTransformersToTheBitInBf16) {
  EXPECT_EQ(largest_difference(rotated(at::kBFloat16, 1e4, 1.0), tensor_of(kRotaryLocalBf16, {6, 2, 8})), 0.0);
  EXPECT_EQ(largest_difference(rotated(at::kBFloat16, 1e6, 8.0), tensor_of(kRotaryGlobalBf16, {6, 2, 8})), 0.0);
}

// fp64 has no kernels: it goes through LibTorch's operators, as tensors on a GPU do.
TEST_F(Rotary, EqualsTransformersThroughLibTorchsOperators) {
  EXPECT_LE(largest_difference(rotated(at::kDouble, 1e6, 8.0), tensor_of(kRotaryGlobal, {6, 2, 8})), 1e-6);
}

TEST_F(Rotary, ItsGradientIsTheTurnBack) {
  const at::Tensor x = input_.clone().requires_grad_(true);
  const at::Tensor output = rotate(x, rotary_table(positions_, 8, 1e4, 1.0, at::kFloat));
  // A turn keeps lengths, so turning the result back by its gradient formula gives the input.
  output.backward(output.detach());
  EXPECT_LE(largest_difference(x.grad(), x), 2e-6);
}

}  // namespace
}  // namespace gemma_sft
