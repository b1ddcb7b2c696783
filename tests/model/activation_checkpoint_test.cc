#include "model/activation_checkpoint.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include "tests/model/counting_allocator.h"
#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

const Documents kDocuments = random_documents({19, 4, 11}, 5);

LossAndGradients run(const GemmaConfig& config, bool checkpointing, bool lora,
                     const Documents& documents = kDocuments) {
  GemmaOptions options;
  options.activation_checkpointing = checkpointing;
  Gemma model = random_model(config, options, 3);
  if (lora) {
    model.add_lora({.rank = 3, .alpha = 6, .dropout = 0.4, .target_modules = {"q_proj", "down_proj"}}, 11);
    for (const Parameter& parameter : model.lora_parameters()) {  // B = 0 would leave A without a gradient
      if (parameter.name.ends_with("lora_B.weight")) parameter.tensor.detach().fill_(0.1);
    }
  }
  model.set_training(true);
  at::Generator(at::globalContext().defaultGenerator(at::kCPU)).set_current_seed(77);
  return train_pass(model, pack(documents));
}

void expect_same_bits(const LossAndGradients& a, const LossAndGradients& b) {
  EXPECT_EQ(a.loss, b.loss);
  ASSERT_EQ(a.gradients.size(), b.gradients.size());
  for (size_t i = 0; i < a.gradients.size(); ++i) {
    ASSERT_TRUE(a.gradients[i].defined() && b.gradients[i].defined()) << i;
    EXPECT_TRUE(same_bits(a.gradients[i], b.gradients[i])) << i;
    EXPECT_GT(a.gradients[i].abs().max().item<double>(), 0.0) << i;
  }
}

TEST(ActivationCheckpoint, ChangesNoBitOfAnyGradient) {
  for (const GemmaConfig& config : {tiny_gemma3(), tiny_gemma2()}) {
    expect_same_bits(run(config, true, false), run(config, false, false));
  }
}

// The input of the first block needs no gradient when the embedding is frozen; the adapters' gradients must come all
// the same, and the second run must draw the dropout masks of the first.
TEST(ActivationCheckpoint, ChangesNoBitWithAFrozenBaseAndDropout) {
  expect_same_bits(run(tiny_gemma3(), true, true), run(tiny_gemma3(), false, true));
}

TEST(ActivationCheckpoint, LeavesTheGeneratorWhereTheForwardPassLeftIt) {
  at::Tensor after[2];
  for (const bool checkpointing : {false, true}) {
    run(tiny_gemma3(), checkpointing, true);
    after[checkpointing] = at::globalContext().defaultGenerator(at::kCPU).get_state();
  }
  EXPECT_TRUE(after[0].equal(after[1]));
}

TEST(ActivationCheckpoint, HoldsLessBetweenForwardAndBackward) {
  GemmaConfig config = tiny_gemma3();
  config.num_layers = 8;
  config.layer_kinds.assign(8, LayerKind::kGlobal);
  const Documents documents = random_documents({120, 120, 120, 120}, 1);
  int64_t held[2];
  for (const bool checkpointing : {false, true}) {
    GemmaOptions options;
    options.activation_checkpointing = checkpointing;
    Gemma model = random_model(config, options, 3);
    CountingAllocator memory;
    const int64_t before = memory.held();
    const at::Tensor loss = loss_of(model, pack(documents));
    held[checkpointing] = memory.held() - before;
  }
  EXPECT_LT(held[1], held[0] / 3);
}

TEST(ActivationCheckpoint, OfAFewBlocksChangesNoBitAndHoldsWhatTheOthersHold) {
  GemmaConfig config = tiny_gemma3();
  config.num_layers = 8;
  config.layer_kinds.assign(8, LayerKind::kGlobal);
  const PackedBatch batch = pack(random_documents({120, 120, 120, 120}, 1));
  std::vector<int64_t> held;
  std::vector<LossAndGradients> made;
  for (const int64_t layers : {0, 3, 8}) {
    Gemma model = random_model(config, {}, 3);
    model.recompute_layers(layers);
    CountingAllocator memory;
    const int64_t before = memory.held();
    {
      const at::Tensor loss = loss_of(model, batch);
      held.push_back(memory.held() - before);
    }
    made.push_back(train_pass(model, batch));
    EXPECT_EQ(made.back().loss, made.front().loss);
    for (size_t i = 0; i < made.back().gradients.size(); ++i) {
      EXPECT_TRUE(same_bits(made.back().gradients[i], made.front().gradients[i]));
    }
  }
  EXPECT_NEAR(static_cast<double>(held[0] - held[1]), 3.0 / 8.0 * static_cast<double>(held[0] - held[2]),
              0.02 * static_cast<double>(held[0]));
  EXPECT_LT(held[2], held[0] / 3);
}

TEST(ActivationCheckpoint, APassThatIsNeverRunBackwardFreesEverything) {
  for (const bool checkpointing : {false, true}) {
    GemmaOptions options;
    options.activation_checkpointing = checkpointing;
    Gemma model = random_model(tiny_gemma2(), options, 3);
    CountingAllocator memory;
    const int64_t before = memory.held();
    loss_of(model, pack(kDocuments));
    EXPECT_EQ(memory.held(), before);
    train_pass(model, pack(kDocuments));
    EXPECT_EQ(memory.held(), before);
  }
}

}  // namespace
}  // namespace gemma_sft
