#include "model/gelu_gate.h"

#include <ATen/ops/gelu.h>
#include <gtest/gtest.h>

#include "tests/model/reference_values.h"
#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

// fp64 has no kernels: it goes through LibTorch's operators, as tensors on a GPU do.
class GeluGateOf : public ::testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Dtypes, GeluGateOf, ::testing::Values(at::kFloat, at::kDouble));

TEST_P(GeluGateOf, EqualsTransformersForwardAndBackward) {
  const at::Tensor gate = tensor_of(kGate, {4, 5}).to(GetParam()).requires_grad_(true),
                   up = tensor_of(kUp, {4, 5}).to(GetParam()).requires_grad_(true);
  const at::Tensor output = gelu_gate(gate, up);
  const at::Tensor expected = tensor_of(kGateOutput, {4, 5});
  EXPECT_LE(largest_difference(output, expected), 5e-7);
  output.backward(tensor_of(kGateOutputGradient, {4, 5}).to(GetParam()));
  EXPECT_LE(largest_difference(gate.grad(), tensor_of(kGateGradient, {4, 5})), 1e-6);
  EXPECT_LE(largest_difference(up.grad(), tensor_of(kUpGradient, {4, 5})), 1e-6);
  // The exact GELU is far outside the tolerance above.
  EXPECT_GT(largest_difference(at::gelu(gate.detach()).mul(up.detach()), expected), 1e-4);
}

TEST(GeluGate, RoundsTheActivationAndTheProductInBf16AsTransformers) {
  const at::Tensor output =
      gelu_gate(tensor_of(kGate, {4, 5}).to(at::kBFloat16), tensor_of(kUp, {4, 5}).to(at::kBFloat16));
  EXPECT_LE(relative_difference(output, tensor_of(kGateOutputBf16, {4, 5})), 1.0 / 256);
}

}  // namespace
}  // namespace gemma_sft
