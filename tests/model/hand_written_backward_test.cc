#include "model/hand_written_backward.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/mul.h>
#include <gtest/gtest.h>

#include <memory>

#include "configs/error.h"
#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

at::Tensor tripled(const at::Tensor& x, std::shared_ptr<int> captured = nullptr) {
  at::NoGradGuard no_grad;
  return with_backward(at::mul(x, 3.0), {x},
                       [captured = std::move(captured)](const at::Tensor& gradient) -> std::vector<at::Tensor> {
                         EXPECT_FALSE(c10::GradMode::is_enabled());
                         return {at::mul(gradient, 3.0)};
                       });
}

TEST(HandWrittenBackward, TakesPartInAutogradsGraph) {
  const at::Tensor x = tensor_of({1, 2}, {2}).requires_grad_(true);
  const at::Tensor y = tripled(tripled(x.mul(2.0)));
  y.mul(y).sum().backward();  // d/dx (18 x)^2 = 648 x
  EXPECT_EQ(largest_difference(x.grad(), tensor_of({648, 1296}, {2})), 0.0);
}

TEST(HandWrittenBackward, DropsWhatTheFormulaHoldsWhenItHasRun) {
  const at::Tensor x = tensor_of({1, 2}, {2}).requires_grad_(true);
  const auto captured = std::make_shared<int>(1);
  const at::Tensor y = tripled(x, captured);
  EXPECT_EQ(captured.use_count(), 2);
  y.sum().backward();
  EXPECT_EQ(captured.use_count(), 1);
}

TEST(HandWrittenBackward, DropsItAsWellWhenTheBackwardPassNeverRuns) {
  const at::Tensor x = tensor_of({1, 2}, {2}).requires_grad_(true);
  const auto captured = std::make_shared<int>(1);
  tripled(x, captured).sum();
  EXPECT_EQ(captured.use_count(), 1);
}

TEST(HandWrittenBackward, ASecondBackwardPassIsRefused) {
  const at::Tensor x = tensor_of({1, 2}, {2}).requires_grad_(true);
  const at::Tensor y = tripled(x);
  y.sum().backward();
  EXPECT_THROW(y.sum().backward(), Error);
}

TEST(HandWrittenBackward, KnowsWhenAGradientIsWanted) {
  const at::Tensor plain = tensor_of({1}, {1}), trained = tensor_of({1}, {1}).requires_grad_(true);
  EXPECT_TRUE(wants_gradient({plain, at::Tensor(), trained}));
  EXPECT_FALSE(wants_gradient({plain, at::Tensor()}));
  at::NoGradGuard no_grad;
  EXPECT_FALSE(wants_gradient({trained}));
}

}  // namespace
}  // namespace gemma_sft
