// The layers made of the GPU's kernels, with the kernels' arithmetic on the CPU, against LibTorch's operators in fp64
// and against the paths they replace.
#include "model/gpu/fused.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "configs/error.h"
#include "model/embedding.h"
#include "model/gelu_gate.h"
#include "model/hand_written_backward.h"
#include "model/rms_norm.h"
#include "model/rotary_embedding.h"
#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

using ::testing::HasSubstr;
using Layer = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

struct Outcome {
  std::vector<at::Tensor> outputs, gradients;
};

// Outputs of the layer and the gradients of its inputs, for fixed output gradients.
Outcome run(const Layer& layer, const std::vector<at::Tensor>& given, at::ScalarType dtype) {
  std::vector<at::Tensor> inputs;
  for (const at::Tensor& input : given) inputs.push_back(input.to(dtype).detach().requires_grad_(true));
  Outcome outcome;
  outcome.outputs = layer(inputs);
  at::Tensor total = at::zeros({}, at::TensorOptions().dtype(at::kDouble));
  for (const at::Tensor& output : outcome.outputs) {
    const at::Tensor gradient = at::arange(1, output.numel() + 1).remainder(7).sub(3).to(at::kDouble);
    total = total.add(output.to(at::kDouble).reshape(-1).mul(gradient).sum());
  }
  total.backward();
  for (const at::Tensor& input : inputs) outcome.gradients.push_back(input.grad());
  return outcome;
}

// The fused layer in fp32 and bf16 against the same layer by LibTorch's operators in fp64 (which no kernel takes).
void expect_equal(const Layer& layer, const std::vector<at::Tensor>& inputs) {
  const Outcome expected = run(layer, inputs, at::kDouble);
  for (const auto& [dtype, bar] : {std::pair{at::kFloat, 4e-6}, std::pair{at::kBFloat16, 3e-2}}) {
    const HostKernels on;
    const Outcome found = run(layer, inputs, dtype);
    for (size_t i = 0; i < expected.outputs.size(); ++i) {
      EXPECT_LE(relative_difference(found.outputs[i].to(at::kDouble), expected.outputs[i]), bar) << "output " << i;
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      ASSERT_TRUE(found.gradients[i].defined());
      EXPECT_LE(relative_difference(found.gradients[i].to(at::kDouble), expected.gradients[i]), bar) << "input " << i;
    }
  }
}

// Widths that packs of 16 bytes fill and others; fewer rows than parts of the weight's gradient and, at a width of 2048
// (512 parts), more.
TEST(FusedLayers, ANormEqualsLibTorchsOperatorsForwardAndBackward) {
  at::manual_seed(7);
  for (const int64_t width : {7, 64, 1152, 2048, 9000}) {
    for (const int64_t rows : {1, 5, 600}) {
      if (rows * width > 2'000'000) continue;
      expect_equal([](const auto& inputs) -> std::vector<at::Tensor> { return {rms_norm(inputs[0], inputs[1], 1e-6)}; },
                   {at::randn({rows, width}), at::randn({width}).mul_(0.3)});
    }
  }
}

TEST(FusedLayers, AResidualConnectionWithItsNormEqualsTheTwoApart) {
  at::manual_seed(7);
  for (const int64_t width : {7, 640}) {
    const std::vector<at::Tensor> inputs = {at::randn({9, width}), at::randn({9, width}), at::randn({width}).mul_(0.3)};
    expect_equal(
        [](const auto& given) -> std::vector<at::Tensor> {
          const auto [sum, normed] = add_rms_norm(given[0], given[1], given[2], 1e-6);
          return {sum, normed};
        },
        inputs);
    // Only one of the outputs is used.
    expect_equal(
        [](const auto& given) -> std::vector<at::Tensor> {
          return {add_rms_norm(given[0], given[1], given[2], 1e-6).second};
        },
        inputs);
  }
}

TEST(FusedLayers, TheSumAloneNeedsNoNormsGradient) {
  at::manual_seed(7);
  const HostKernels on;
  const at::Tensor x = at::randn({3, 8}).requires_grad_(true), change = at::randn({3, 8}).requires_grad_(true);
  add_rms_norm(x, change, at::zeros({8}), 1e-6).first.sum().backward();
  EXPECT_TRUE(x.grad().eq(1).all().item<bool>());
  EXPECT_TRUE(change.grad().eq(1).all().item<bool>());
}

TEST(FusedLayers, HeadsWithAndWithoutNormEqualTheTwoStepsApart) {
  at::manual_seed(7);
  for (const int64_t dim : {6, 64, 256}) {
    const int64_t tokens = 300, heads = 3;
    const at::Tensor positions = at::arange(0, tokens, at::TensorOptions().dtype(at::kLong));
    const auto layer = [&](bool norms) -> Layer {
      return [=](const auto& given) -> std::vector<at::Tensor> {
        const RotaryTable table = rotary_table(positions, dim, 10000, 1.0, given[0].scalar_type());
        return {norm_and_rotate(given[0], norms ? given[1] : at::Tensor(), 1e-6, table)};
      };
    };
    const at::Tensor x = at::randn({tokens, heads, dim});
    expect_equal(layer(true), {x, at::randn({dim}).mul_(0.3)});
    expect_equal(layer(false), {x});
  }
}

TEST(FusedLayers, TheGateEqualsLibTorchsOperators) {
  at::manual_seed(7);
  for (const int64_t width : {5, 64}) {
    expect_equal([](const auto& given) -> std::vector<at::Tensor> { return {gelu_gate(given[0], given[1])}; },
                 {at::randn({7, width}).mul_(3), at::randn({7, width})});
  }
}

TEST(FusedLayers, AnEmbeddingEqualsTheLookupScaledAndSumsRepeatedIds) {
  at::manual_seed(7);
  for (const auto storage : {at::kFloat, at::kBFloat16}) {
    for (const auto& [width, pad_id] :
         std::vector<std::pair<int64_t, std::optional<int64_t>>>{{5, 0}, {64, 3}, {64, std::nullopt}}) {
      const at::Tensor weight = at::randn({11, width}).to(storage).requires_grad_(true);
      const at::Tensor other = weight.detach().clone().requires_grad_(true);
      const at::Tensor ids = at::tensor({3, 0, 3, 10, 1, 3, 0}, at::TensorOptions().dtype(at::kLong));
      const double scale = embedding_scale(width, storage);
      const at::Tensor gradient = at::randn({7, width}).to(storage);
      // What the head has left there already is added to.
      const at::Tensor before = at::randn({11, width}).to(storage);
      weight.mutable_grad() = before.clone();
      other.mutable_grad() = before.clone();
      const HostKernels on;
      const at::Tensor found = fused_embed(ids, weight, scale, storage, pad_id);
      const at::Tensor expected = embed(ids, other, storage, pad_id).mul(scale);
      EXPECT_TRUE(same_bits(found.detach(), expected.detach()));
      found.backward(gradient);
      expected.backward(gradient);
      if (pad_id) {
        EXPECT_TRUE(same_bits(weight.grad().select(0, *pad_id), before.select(0, *pad_id)));
      }
      // The sum is rounded once, the other path's after each addition: so against the sum in fp64.
      at::Tensor sums = before.to(at::kDouble);
      at::Tensor rows = gradient.mul(scale).to(at::kDouble);
      if (pad_id) rows.masked_fill_(ids.eq(*pad_id).unsqueeze(1), 0);
      sums.index_add_(0, ids, rows);
      const double unit = storage == at::kFloat ? 1e-6 : 1.0 / 256;
      EXPECT_TRUE(weight.grad().to(at::kDouble).sub(sums).abs().le(sums.abs().mul(unit).add(1e-5)).all().item<bool>());
      EXPECT_LE(relative_difference(other.grad(), weight.grad()), storage == at::kFloat ? 1e-6 : 2e-2);
    }
  }
}

TEST(FusedLayers, FrozenWeightsAndInputsGetNoGradient) {
  at::manual_seed(7);
  const HostKernels on;
  const at::Tensor x = at::randn({4, 8}), weight = at::randn({8}).requires_grad_(true);
  rms_norm(x, weight, 1e-6).sum().backward();
  EXPECT_TRUE(weight.grad().defined());
  const at::Tensor trained = at::randn({4, 8}).requires_grad_(true), frozen = at::randn({8});
  rms_norm(trained, frozen, 1e-6).sum().backward();
  EXPECT_TRUE(trained.grad().defined());
  EXPECT_FALSE(frozen.grad().defined());
  EXPECT_FALSE(rms_norm(x, frozen, 1e-6).requires_grad());
}

TEST(FusedSwitches, NamesAreThoseOfTheHeader) {
  EXPECT_TRUE(parse_fused_off("").empty());
  EXPECT_EQ(parse_fused_off("norm,adamw"), (std::set{FusedKernel::kNorm, FusedKernel::kAdamW}));
  EXPECT_EQ(parse_fused_off("all").size(), 7u);
  try {
    parse_fused_off("norm,nrom");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("\"nrom\" is no kernel"));
  }
}

TEST(FusedSwitches, TheLogNamesWhatIsUsed) {
  EXPECT_EQ(random_model(tiny_gemma3(), {}, 1).describe_kernels(),
            "our kernels: none; attention: by blocks (flash: it computes in bf16 and fp16 only)");
  const HostKernels on;
  EXPECT_EQ(random_model(tiny_gemma2(), {}, 1).describe_kernels(),
            "our kernels: norm, head, gate, embedding, loss, attention, adamw; attention: by blocks (flash: it has no "
            "soft-cap)");
}

TEST(FusedSwitches, CpuTensorsTakeTheKernelsOnlyWhileAskedTo) {
  const at::Tensor x = at::randn({2, 2});
  EXPECT_FALSE(takes_fused(FusedKernel::kNorm, x));
  {
    const HostKernels on;
    EXPECT_TRUE(takes_fused(FusedKernel::kNorm, x));
    EXPECT_FALSE(takes_fused(FusedKernel::kNorm, x.to(at::kDouble)));
    EXPECT_THROW(HostKernels(), Error);
  }
  EXPECT_FALSE(takes_fused(FusedKernel::kNorm, x));
}

}  // namespace
}  // namespace gemma_sft
