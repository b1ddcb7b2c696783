#include "model/lora.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "configs/error.h"
#include "configs/module_pattern.h"
#include "model/linear.h"
#include "model/lora_targets.h"
#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

const Documents kDocuments = random_documents({17, 9}, 5);

at::Tensor hidden_of(Gemma& model) {
  at::NoGradGuard no_grad;
  return model.forward(to_device(pack(kDocuments), at::kCPU));
}

void fill_b(Gemma& model) {
  at::NoGradGuard no_grad;
  uint64_t seed = 100;
  for (const Parameter& parameter : model.lora_parameters()) {
    if (!parameter.name.ends_with("lora_B.weight")) continue;
    const auto generator = at::globalContext().defaultGenerator(at::kCPU).clone();
    at::Generator own = generator;
    own.set_current_seed(seed++);
    at::Tensor(parameter.tensor).normal_(0.0, 0.3, own);
  }
}

TEST(LoraPattern, TheLayersAreThoseOfEveryModel) {
  for (const GemmaConfig& config : {tiny_gemma2(), tiny_gemma3()}) {
    Gemma model = random_model(config, {}, 3);
    model.add_lora({.rank = 2, .target_modules = {"*"}}, 1);
    const std::vector<LinearLayer> layers = linear_layers(config);
    const std::vector<Parameter> matrices = model.lora_parameters();
    ASSERT_EQ(matrices.size(), 2 * layers.size());
    for (size_t i = 0; i < layers.size(); ++i) {
      EXPECT_EQ(matrices[2 * i].name, "base_model.model." + layers[i].path + ".lora_A.weight");
      EXPECT_EQ(matrices[2 * i].tensor.size(1), layers[i].in);
      EXPECT_EQ(target_problem(layers[i].path), "");  // a configuration may name each
      EXPECT_EQ(matrices[2 * i + 1].tensor.size(0), layers[i].out);
    }
  }
}

TEST(LoraScale, IsAlphaOverRankOrOverItsRoot) {
  EXPECT_DOUBLE_EQ((LoraOptions{.rank = 16, .alpha = 32}).scale(), 2.0);
  EXPECT_DOUBLE_EQ((LoraOptions{.rank = 16, .alpha = 32, .rslora = true}).scale(), 8.0);
}

TEST(LoraLinear, IsTheBaseAndTheScaledProductOfTheTwoMatrices) {
  Linear linear;
  linear.weight = tensor_of({1, 2, 3, 4}, {2, 2});
  linear.lora_a = tensor_of({1, -1}, {1, 2});
  linear.lora_b = tensor_of({10, 100}, {2, 1});
  linear.lora_scale = 0.5;
  // W x = (5, 11); A x = -1; 0.5 * B * -1 = (-5, -50).
  EXPECT_EQ(largest_difference(apply(linear, tensor_of({1, 2}, {1, 2}), false), tensor_of({0, -39}, {1, 2})), 0.0);
}

TEST(Lora, StartsAsTheBaseModel) {
  Gemma model = random_model(tiny_gemma3(), {}, 3);
  const at::Tensor before = hidden_of(model);
  model.add_lora({.target_modules = {"*"}}, 1);
  EXPECT_EQ(largest_difference(hidden_of(model), before), 0.0);
}

TEST(Lora, AdaptsWhatThePatternsMeanAndFreezesTheBase) {
  GemmaOptions options;
  options.storage_dtype = options.compute_dtype = at::kBFloat16;
  Gemma model = random_model(tiny_gemma3(), options, 3);
  model.add_lora({.rank = 5, .target_modules = {"q_proj", "model.layers.1.mlp.*"}}, 1);
  std::set<std::string> names;
  for (const Parameter& parameter : model.trainable_parameters()) {
    names.insert(parameter.name);
    EXPECT_EQ(parameter.tensor.scalar_type(), at::kFloat);
    EXPECT_TRUE(parameter.tensor.requires_grad() && parameter.tensor.is_leaf());
  }
  std::set<std::string> expected;
  for (const std::string path : {"layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj", "layers.2.self_attn.q_proj",
                                 "layers.1.mlp.gate_proj", "layers.1.mlp.up_proj", "layers.1.mlp.down_proj"}) {
    expected.insert("base_model.model.model." + path + ".lora_A.weight");
    expected.insert("base_model.model.model." + path + ".lora_B.weight");
  }
  EXPECT_EQ(names, expected);
  train_pass(model, pack(kDocuments));
  for (const Parameter& parameter : model.base_parameters()) {
    EXPECT_FALSE(parameter.tensor.requires_grad()) << parameter.name;
    EXPECT_FALSE(parameter.tensor.grad().defined()) << parameter.name;
    EXPECT_EQ(parameter.tensor.scalar_type(), at::kBFloat16);
  }
}

TEST(Lora, InitialMatricesAreUniformWithinTheBoundAndDependOnTheSeedOnly) {
  const auto matrices = [](uint64_t seed) {
    Gemma model = random_model(tiny_gemma3(), {}, 3);
    at::Generator(at::globalContext().defaultGenerator(at::kCPU)).set_current_seed(seed * 31);  // must not matter
    model.add_lora({.rank = 64, .target_modules = {"q_proj"}}, seed);
    return model.lora_parameters();
  };
  const auto first = matrices(1), again = matrices(1), other = matrices(2);
  EXPECT_TRUE(first[0].tensor.equal(again[0].tensor));
  EXPECT_FALSE(first[0].tensor.equal(other[0].tensor));
  EXPECT_FALSE(first[0].tensor.equal(first[2].tensor));
  // Kaiming-uniform with a = sqrt(5): +-1/sqrt(32), standard deviation bound / sqrt(3).
  const double bound = 1 / std::sqrt(32.0), most = first[0].tensor.detach().abs().max().item<double>();
  EXPECT_LE(most, bound);
  EXPECT_GT(most, 0.98 * bound);
  EXPECT_NEAR(first[0].tensor.detach().std().item<double>(), bound / std::sqrt(3.0), 0.05 * bound);
  EXPECT_EQ(first[1].tensor.detach().abs().max().item<double>(), 0.0);
}

TEST(Lora, DropsOnlyInTraining) {
  Gemma model = random_model(tiny_gemma3(), {}, 3);
  model.add_lora({.rank = 4, .alpha = 8, .dropout = 0.5, .target_modules = {"q_proj", "up_proj"}}, 1);
  fill_b(model);
  const at::Tensor plain = hidden_of(model);
  EXPECT_TRUE(hidden_of(model).equal(plain));
  model.set_training(true);
  const at::Tensor dropped = hidden_of(model);
  EXPECT_GT(largest_difference(dropped, plain), 1e-3);
  EXPECT_GT(largest_difference(dropped, hidden_of(model)), 1e-3);
  model.set_training(false);
  EXPECT_TRUE(hidden_of(model).equal(plain));
}

TEST(Lora, TheMergedModelComputesTheSame) {
  for (const bool rslora : {false, true}) {
    Gemma model = random_model(tiny_gemma3(), {}, 3);
    model.add_lora({.rank = 4, .alpha = 8, .rslora = rslora, .target_modules = {"*"}}, 1);
    fill_b(model);
    Gemma merged = random_model(tiny_gemma3(), {}, 3);
    double moved = 0;
    for (const Parameter& parameter : merged.base_parameters()) {
      at::NoGradGuard no_grad;
      moved = std::max(moved, largest_difference(parameter.tensor, model.merged_weight(parameter.name)));
      at::Tensor(parameter.tensor).copy_(model.merged_weight(parameter.name));
    }
    EXPECT_GT(moved, 0.1);
    EXPECT_LE(largest_difference(hidden_of(merged), hidden_of(model)), 2e-5);
  }
}

TEST(Lora, AMergedWeightIsRoundedOnceFromFp32) {
  GemmaOptions options;
  options.storage_dtype = options.compute_dtype = at::kBFloat16;
  Gemma model = random_model(tiny_gemma3(), options, 3);
  model.add_lora({.rank = 2, .alpha = 2, .target_modules = {"q_proj"}}, 1);
  fill_b(model);
  const std::string name = "model.layers.0.self_attn.q_proj.weight";
  const auto adapters = model.lora_parameters();
  at::NoGradGuard no_grad;
  const at::Tensor delta = adapters[1].tensor.matmul(adapters[0].tensor);
  at::Tensor base;
  for (const Parameter& parameter : model.base_parameters()) {
    if (parameter.name == name) base = parameter.tensor;
  }
  EXPECT_TRUE(same_bits(model.merged_weight(name), base.to(at::kFloat).add(delta).to(at::kBFloat16)));
  EXPECT_TRUE(same_bits(model.merged_weight("model.norm.weight"), model.base_parameters().back().tensor.detach()));
}

TEST(Lora, APatternThatMeansNothingIsAnError) {
  for (const std::vector<std::string>& patterns :
       {std::vector<std::string>{"q_proj", "qproj"}, {"lm_head"}, {"embed_tokens"}, {}}) {
    Gemma model = random_model(tiny_gemma3(), {}, 3);
    try {
      model.add_lora({.target_modules = patterns}, 1);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_NE(std::string(error.what()).find(patterns.empty() ? "names no layer" : patterns.back()),
                std::string::npos);
    }
    EXPECT_FALSE(model.has_lora());
    EXPECT_TRUE(model.trainable_parameters().front().tensor.requires_grad());
  }
}

}  // namespace
}  // namespace gemma_sft
