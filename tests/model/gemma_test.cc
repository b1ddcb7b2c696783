#include "model/gemma.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

at::Tensor hidden_of(Gemma& model, const PackedBatch& batch) {
  at::NoGradGuard no_grad;
  return model.forward(to_device(batch, at::kCPU));
}

std::vector<GemmaConfig> configs() {
  GemmaConfig gemma1 = tiny_gemma3();
  gemma1.family = Family::kGemma1;
  gemma1.qk_norm = gemma1.sandwich_norms = false;
  gemma1.num_kv_heads = 1;
  gemma1.layer_kinds.assign(3, LayerKind::kGlobal);
  return {gemma1, tiny_gemma2(), tiny_gemma3()};
}

// Any token of any document changed: the other documents stay where they are, on local and global layers, packed and
// padded.
TEST(Gemma, ADocumentDoesNotSeeItsNeighbours) {
  for (const GemmaConfig& config : configs()) {
    Gemma model = random_model(config, {}, 3);
    const Documents documents = random_documents({9, 20, 14}, 4);
    for (const auto lay_out : {&pack, &pad}) {
      const at::Tensor before = hidden_of(model, lay_out(documents));
      for (size_t changed = 0; changed < documents.size(); ++changed) {
        for (size_t token = 0; token < documents[changed].size(); ++token) {
          Documents other = documents;
          other[changed][token] = 1 + other[changed][token] % 96;
          const PackedBatch batch = lay_out(other);
          const at::Tensor after = hidden_of(model, batch);
          for (size_t d = 0; d < documents.size(); ++d) {
            const int64_t first = batch.document_offsets[d], length = batch.document_lengths[d];
            const double moved = largest_difference(after.narrow(0, first, length), before.narrow(0, first, length));
            if (d != changed) {
              EXPECT_LE(moved, 1e-6);
            } else {
              EXPECT_GT(moved, 1e-3);
            }
          }
        }
      }
    }
  }
}

TEST(Gemma, ATokenDoesNotSeeLaterOnes) {
  for (const GemmaConfig& config : configs()) {
    Gemma model = random_model(config, {}, 3);
    Documents documents = random_documents({20}, 4);
    const at::Tensor before = hidden_of(model, pack(documents));
    documents[0][12] = 1 + documents[0][12] % 96;
    const at::Tensor after = hidden_of(model, pack(documents));
    EXPECT_LE(largest_difference(after.narrow(0, 0, 12), before.narrow(0, 0, 12)), 1e-6);
    EXPECT_GT(largest_difference(after.narrow(0, 12, 8), before.narrow(0, 12, 8)), 1e-3);
  }
}

TEST(Gemma, PackedEqualsPaddedEqualsOneByOne) {
  for (const GemmaConfig& config : configs()) {
    Gemma model = random_model(config, {}, 3);
    const Documents documents = random_documents({9, 1, 31, 14, 30}, 4);
    const LossAndGradients packed = train_pass(model, pack(documents)), padded = train_pass(model, pad(documents));
    double one_by_one = 0;
    for (const auto& document : documents) one_by_one += train_pass(model, pack({document})).loss;
    EXPECT_NEAR(packed.loss, padded.loss, 1e-6 * packed.loss);
    EXPECT_NEAR(packed.loss, one_by_one, 1e-6 * packed.loss);
    for (size_t i = 0; i < packed.gradients.size(); ++i) {
      EXPECT_LE(relative_difference(packed.gradients[i], padded.gradients[i]), 1e-5) << i;
    }
    const PackedBatch packed_batch = pack(documents), padded_batch = pad(documents);
    const at::Tensor a = hidden_of(model, packed_batch), b = hidden_of(model, padded_batch);
    for (size_t d = 0; d < documents.size(); ++d) {
      const int64_t length = packed_batch.document_lengths[d];
      EXPECT_LE(largest_difference(a.narrow(0, packed_batch.document_offsets[d], length),
                                   b.narrow(0, padded_batch.document_offsets[d], length)),
                1e-5);
    }
  }
}

TEST(Gemma, PaddingNeverGivesNaN) {
  for (const GemmaConfig& config : configs()) {
    Gemma model = random_model(config, {}, 3);
    const PackedBatch batch = pad(random_documents({40, 1, 2}, 4));
    EXPECT_TRUE(hidden_of(model, batch).isfinite().all().item<bool>());
    for (const at::Tensor& gradient : train_pass(model, batch).gradients) {
      EXPECT_TRUE(gradient.isfinite().all().item<bool>());
    }
  }
}

// Moving every weight along its gradient moves the loss by the gradient's squared length: holds only when all of them,
// the two of the tied embedding included, are right and complete.
TEST(Gemma, TheGradientIsTheSlopeOfTheLoss) {
  for (const GemmaConfig& config : configs()) {
    Gemma model = random_model(config, {}, 3);
    const PackedBatch batch = pack(random_documents({9, 20, 14}, 4));
    const LossAndGradients at_start = train_pass(model, batch);
    double squared = 0;
    for (const at::Tensor& gradient : at_start.gradients)
      squared += gradient.to(at::kDouble).square().sum().item<double>();
    const double step = 2e-3 / std::sqrt(squared);
    double losses[2];
    for (const int side : {0, 1}) {
      Gemma moved = random_model(config, {}, 3);
      const std::vector<Parameter> parameters = moved.base_parameters();
      for (size_t i = 0; i < parameters.size(); ++i) {
        parameters[i].tensor.detach().add_(at_start.gradients[i], side == 0 ? -step : step);
      }
      at::NoGradGuard no_grad;
      losses[side] = loss_of(moved, batch).item<double>();
    }
    EXPECT_NEAR((losses[1] - losses[0]) / (2 * step * squared), 1.0, 2e-2);
  }
}

TEST(Gemma, GradientsAddUpOverMicroBatches) {
  Gemma model = random_model(tiny_gemma3(), {}, 3);
  const Documents documents = random_documents({9, 20, 14, 6}, 4);
  const LossAndGradients whole = train_pass(model, pack(documents));
  loss_of(model, pack({documents[0], documents[1]})).backward();
  const LossAndGradients rest = train_pass(model, pack({documents[2], documents[3]}));
  for (size_t i = 0; i < whole.gradients.size(); ++i) {
    EXPECT_LE(relative_difference(rest.gradients[i], whole.gradients[i]), 1e-5) << i;
  }
}

TEST(Gemma, NamesItsParametersAsHuggingFace) {
  std::vector<std::string> names, decaying;
  GemmaConfig config = tiny_gemma3();
  config.num_layers = 1;
  config.layer_kinds = {LayerKind::kGlobal};
  for (const Parameter& parameter : Gemma(config, {}).base_parameters()) {
    names.push_back(parameter.name);
    if (parameter.decays) decaying.push_back(parameter.name);
    EXPECT_TRUE(parameter.tensor.is_leaf() && parameter.tensor.requires_grad());
  }
  const std::string layer = "model.layers.0.";
  EXPECT_EQ(names,
            (std::vector<std::string>{
                "model.embed_tokens.weight", layer + "self_attn.q_proj.weight", layer + "self_attn.k_proj.weight",
                layer + "self_attn.v_proj.weight", layer + "self_attn.o_proj.weight", layer + "self_attn.q_norm.weight",
                layer + "self_attn.k_norm.weight", layer + "mlp.gate_proj.weight", layer + "mlp.up_proj.weight",
                layer + "mlp.down_proj.weight", layer + "input_layernorm.weight",
                layer + "post_attention_layernorm.weight", layer + "pre_feedforward_layernorm.weight",
                layer + "post_feedforward_layernorm.weight", "model.norm.weight"}));
  EXPECT_EQ(decaying, (std::vector<std::string>{"model.embed_tokens.weight", layer + "self_attn.q_proj.weight",
                                                layer + "self_attn.k_proj.weight", layer + "self_attn.v_proj.weight",
                                                layer + "self_attn.o_proj.weight", layer + "mlp.gate_proj.weight",
                                                layer + "mlp.up_proj.weight", layer + "mlp.down_proj.weight"}));
}

TEST(Gemma, ParameterCountIsTheConfigs) {
  for (const GemmaConfig& config : configs()) {
    const Gemma model(config, {});
    int64_t count = 0;
    for (const Parameter& parameter : model.base_parameters()) count += parameter.tensor.numel();
    EXPECT_EQ(count, config.parameter_count());
  }
}

TEST(Gemma, MixedPrecisionKeepsFp32MastersAndTheirGradients) {
  GemmaOptions mixed;
  mixed.compute_dtype = at::kBFloat16;
  for (const GemmaConfig& config : configs()) {
    Gemma exact = random_model(config, {}, 3), model = random_model(config, mixed, 3);
    const PackedBatch batch = pack(random_documents({9, 20, 14}, 4));
    EXPECT_EQ(hidden_of(model, batch).scalar_type(), at::kBFloat16);
    const LossAndGradients expected = train_pass(exact, batch), found = train_pass(model, batch);
    EXPECT_NEAR(found.loss, expected.loss, 0.02 * expected.loss);
    for (size_t i = 0; i < found.gradients.size(); ++i) {
      EXPECT_EQ(found.gradients[i].scalar_type(), at::kFloat);
      const double error = found.gradients[i].sub(expected.gradients[i]).norm().item<double>();
      EXPECT_LE(error, 0.15 * expected.gradients[i].norm().item<double>()) << i;
    }
  }
}

TEST(Gemma, PureBf16GivesBf16Gradients) {
  GemmaOptions options;
  options.storage_dtype = options.compute_dtype = at::kBFloat16;
  Gemma model = random_model(tiny_gemma3(), options, 3);
  for (const at::Tensor& gradient : train_pass(model, pack(random_documents({9, 20}, 4))).gradients) {
    EXPECT_EQ(gradient.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(gradient.isfinite().all().item<bool>());
  }
}

TEST(Gemma, TheSameBatchTwiceGivesTheSameBits) {
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    GemmaOptions options;
    options.compute_dtype = compute;
    Gemma model = random_model(tiny_gemma3(), options, 3);
    const PackedBatch batch = pack(random_documents({9, 20, 14}, 4));
    const LossAndGradients first = train_pass(model, batch), second = train_pass(model, batch);
    EXPECT_EQ(first.loss, second.loss);
    for (size_t i = 0; i < first.gradients.size(); ++i) EXPECT_TRUE(same_bits(first.gradients[i], second.gradients[i]));
  }
}

}  // namespace
}  // namespace gemma_sft
