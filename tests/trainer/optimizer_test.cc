#include "trainer/optimizer.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/gpu/fused.h"
#include "tests/trainer/optimizer_values.h"
#include "tests/trainer/tiny_run.h"

namespace gemma_sft {
namespace {

at::Tensor tensor_of(const double (&values)[4], at::ScalarType dtype = at::kFloat) {
  return at::tensor(at::ArrayRef<double>(values, 4), at::TensorOptions().dtype(at::kDouble)).to(dtype);
}

std::vector<Parameter> two_parameters(at::ScalarType dtype) {
  return {{"decayed", tensor_of(kWeights, dtype).requires_grad_(true), true},
          {"plain", tensor_of(kWeights, dtype).requires_grad_(true), false}};
}

at::Tensor scalar(double value) { return at::full({}, value, at::TensorOptions().dtype(at::kFloat)); }

void take_three_steps(Optimizer& optimizer, at::ScalarType dtype) {
  const at::Tensor gradients[] = {tensor_of(kGradients0, dtype), tensor_of(kGradients1, dtype),
                                  tensor_of(kGradients2, dtype)};
  for (int step = 0; step < 3; ++step) {
    for (const Parameter& parameter : optimizer.parameters()) {
      at::Tensor(parameter.tensor).mutable_grad() = gradients[step].clone();
    }
    optimizer.step(kRates[step], scalar(kDivisor), scalar(0), step + 1);
    optimizer.drop_gradients();
  }
}

const OptimizerOptions kOptions = {.beta1 = kBeta1, .beta2 = kBeta2, .epsilon = kEpsilon, .weight_decay = 0.1};

TEST(OptimizerTest, three_steps_equal_the_formulas_with_and_without_weight_decay) {
  Optimizer optimizer(two_parameters(at::kFloat), kOptions);
  take_three_steps(optimizer, at::kFloat);
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(optimizer.parameters()[0].tensor[i].item<double>(), kDecayedWeights[i], 1e-6);
    EXPECT_NEAR(optimizer.parameters()[1].tensor[i].item<double>(), kPlainWeights[i], 1e-6);
  }
  const std::vector<OptimizerMoments> moments = optimizer.moments();
  ASSERT_EQ(moments.size(), 2u);
  EXPECT_EQ(moments[0].name, "decayed");
  EXPECT_EQ(moments[1].name, "plain");
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(moments[1].exp_avg[i].item<double>(), kMoments[i], 1e-6);
    EXPECT_NEAR(moments[1].exp_avg_sq[i].item<double>(), kSquaredMoments[i], 1e-6);
  }
  EXPECT_EQ(moments[0].step.item<float>(), 3.0f);
}

TEST(OptimizerTest, our_kernel_equals_the_formulas_and_libtorchs_kernel) {
  at::manual_seed(7);
  {
    const HostKernels on;
    Optimizer optimizer(two_parameters(at::kFloat), kOptions);
    take_three_steps(optimizer, at::kFloat);
    for (int i = 0; i < 4; ++i) {
      EXPECT_NEAR(optimizer.parameters()[0].tensor[i].item<double>(), kDecayedWeights[i], 1e-6);
      EXPECT_NEAR(optimizer.parameters()[1].tensor[i].item<double>(), kPlainWeights[i], 1e-6);
      EXPECT_NEAR(optimizer.moments()[1].exp_avg[i].item<double>(), kMoments[i], 1e-6);
      EXPECT_NEAR(optimizer.moments()[1].exp_avg_sq[i].item<double>(), kSquaredMoments[i], 1e-6);
    }
    EXPECT_EQ(optimizer.moments()[0].step.item<float>(), 3.0f);
  }
  // Forty tensors take more than one launch.
  std::vector<at::Tensor> gradients;
  const auto many = [] {
    std::vector<Parameter> parameters;
    for (int i = 0; i < 40; ++i) {
      parameters.push_back(
          {"p", at::full({3, i + 1}, 0.5 + i, at::TensorOptions().dtype(at::kFloat)).requires_grad_(true), i % 3 == 0});
    }
    return parameters;
  };
  for (int i = 0; i < 40; ++i) gradients.push_back(at::randn({3, i + 1}));
  const auto trained = [&](bool ours) {
    std::optional<HostKernels> on;
    if (ours) on.emplace();
    Optimizer optimizer(many(), kOptions);
    for (int step = 1; step <= 3; ++step) {
      for (size_t i = 0; i < gradients.size(); ++i) {
        at::Tensor(optimizer.parameters()[i].tensor).mutable_grad() = gradients[i].clone();
      }
      optimizer.step(0.1, scalar(2), scalar(step == 2 ? 1 : 0), step);  // the second one is skipped
    }
    return optimizer.parameters();
  };
  const auto ours = trained(true), theirs = trained(false);
  for (size_t i = 0; i < ours.size(); ++i) {
    EXPECT_TRUE(ours[i].tensor.allclose(theirs[i].tensor, 1e-6, 1e-6)) << i;
  }
}

// bf16 has a unit of 2^-8 at 1, and to the nearest a step of 1e-4 never leaves 1.
TEST(OptimizerTest, stochastic_rounding_keeps_small_steps_on_average_and_draws_by_seed_and_step) {
  const auto trained = [](bool stochastic, uint64_t seed, int first_step) {
    const auto one = at::full({40000}, 1.0, at::TensorOptions().dtype(at::kBFloat16));
    OptimizerOptions options = {.weight_decay = 0, .stochastic_rounding = stochastic, .seed = seed};
    Optimizer optimizer({{"w", one.clone().requires_grad_(true), true}}, options);
    for (int step = first_step; step < first_step + 3; ++step) {
      at::Tensor(optimizer.parameters()[0].tensor).mutable_grad() = one.clone();
      optimizer.step(1e-4, scalar(1), scalar(0), step);
    }
    return optimizer.parameters()[0].tensor.detach();
  };
  const auto mean = [](const at::Tensor& tensor) { return tensor.to(at::kDouble).mean().item<double>(); };
  EXPECT_EQ(mean(trained(false, 1, 1)), 1.0);
  const at::Tensor drawn = trained(true, 1, 1);
  EXPECT_NEAR(mean(drawn), 1.0 - 3e-4, 3e-5);  // five standard deviations of 40,000 draws of three steps
  EXPECT_TRUE(drawn.equal(trained(true, 1, 1)));
  EXPECT_FALSE(drawn.equal(trained(true, 2, 1)));
  EXPECT_FALSE(drawn.equal(trained(true, 1, 2)));
}

TEST(OptimizerTest, bf16_weights_have_bf16_moments_and_come_within_bf16_of_the_formulas) {
  Optimizer optimizer(two_parameters(at::kBFloat16), kOptions);
  take_three_steps(optimizer, at::kBFloat16);
  EXPECT_EQ(optimizer.moments()[0].exp_avg.scalar_type(), at::kBFloat16);
  EXPECT_EQ(optimizer.moments()[0].step.scalar_type(), at::kFloat);
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(optimizer.parameters()[0].tensor[i].item<double>(), kDecayedWeights[i],
                0.02 * std::abs(kDecayedWeights[i]) + 1e-3);
  }
}

TEST(OptimizerTest, restored_moments_continue_bit_by_bit) {
  Optimizer whole(two_parameters(at::kFloat), kOptions);
  take_three_steps(whole, at::kFloat);
  Optimizer copy(two_parameters(at::kFloat), kOptions);
  const auto from = whole.moments();
  const auto to = copy.moments();
  for (size_t i = 0; i < from.size(); ++i) {
    at::Tensor(to[i].exp_avg).copy_(from[i].exp_avg);
    at::Tensor(to[i].exp_avg_sq).copy_(from[i].exp_avg_sq);
    at::Tensor(to[i].step).copy_(from[i].step);
    at::Tensor(copy.parameters()[i].tensor.detach()).copy_(whole.parameters()[i].tensor.detach());
  }
  take_three_steps(whole, at::kFloat);
  take_three_steps(copy, at::kFloat);
  EXPECT_TRUE(whole.parameters()[0].tensor.equal(copy.parameters()[0].tensor));
  EXPECT_TRUE(whole.parameters()[1].tensor.equal(copy.parameters()[1].tensor));
}

// With gradients of zero the only thing that changes a weight is its decay.
TEST(OptimizerTest, decays_every_matrix_of_a_model_and_no_norm) {
  const TinyRun tiny;
  Gemma model = load_tiny_model(tiny);
  Optimizer optimizer(model.trainable_parameters(), kOptions);
  std::vector<at::Tensor> before;
  for (const Parameter& parameter : optimizer.parameters()) {
    at::Tensor weight = parameter.tensor;
    weight.mutable_grad() = at::zeros_like(weight.detach());
    before.push_back(weight.detach().clone());
  }
  optimizer.step(0.5, scalar(1), scalar(0), 1);
  int norms = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    const Parameter& parameter = optimizer.parameters()[i];
    const bool norm = parameter.name.find("norm") != std::string::npos;
    norms += norm ? 1 : 0;
    const at::Tensor wanted = norm ? before[i] : before[i] * (1 - 0.5 * 0.1);
    EXPECT_TRUE(parameter.tensor.detach().allclose(wanted, 1e-6, 1e-9)) << parameter.name;
  }
  EXPECT_EQ(norms, 2 * 6 + 1);
}

}  // namespace
}  // namespace gemma_sft
