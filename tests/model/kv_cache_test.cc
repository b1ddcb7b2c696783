#include "model/kv_cache.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

// 25 tokens, window 6: decoding in pieces gives the logits of the whole forward pass at every place.
void expect_decode_equals_forward(const GemmaConfig& config, const std::vector<int64_t>& pieces) {
  Gemma model = random_model(config, {}, 3);
  const Documents documents = random_documents({25}, 9);
  at::NoGradGuard no_grad;
  const at::Tensor expected = model.logits(model.forward(to_device(pack(documents), at::kCPU)));
  KvCache cache;
  auto token = documents[0].begin();
  for (const int64_t piece : pieces) {
    const at::Tensor logits = model.decode({token, token + piece}, cache);
    token += piece;
    EXPECT_LE(largest_difference(logits, expected.select(0, cache.length - 1)), 1e-5) << cache.length;
  }
  EXPECT_EQ(cache.length, 25);
}

TEST(KvCache, TokenByTokenEqualsTheForwardPass) {
  for (const GemmaConfig& config : {tiny_gemma3(), tiny_gemma2()}) {
    expect_decode_equals_forward(config, std::vector<int64_t>(25, 1));
  }
}

TEST(KvCache, APromptInOneOrMorePiecesEqualsTheForwardPass) {
  for (const GemmaConfig& config : {tiny_gemma3(), tiny_gemma2()}) {
    expect_decode_equals_forward(config, {18, 1, 1, 1, 4});
    expect_decode_equals_forward(config, {3, 9, 13});
    expect_decode_equals_forward(config, {25});
  }
}

TEST(KvCache, SlidingLayersKeepNoMoreThanTheirWindow) {
  Gemma model = random_model(tiny_gemma3(), {}, 3);
  KvCache cache;
  model.decode(random_documents({25}, 9)[0], cache);
  ASSERT_EQ(cache.layers.size(), 3u);
  EXPECT_EQ(cache.layers[0].keys.sizes(), (at::IntArrayRef{2, 5, 12}));  // window - 1: the next token is the sixth
  EXPECT_EQ(cache.layers[1].values.sizes(), (at::IntArrayRef{2, 5, 12}));
  EXPECT_EQ(cache.layers[2].keys.sizes(), (at::IntArrayRef{2, 25, 12}));
  EXPECT_FALSE(cache.layers[2].keys.requires_grad());
}

TEST(KvCache, DecodesWithAnAdapter) {
  Gemma model = random_model(tiny_gemma3(), {}, 3);
  model.add_lora({.rank = 2, .target_modules = {"*"}}, 1);
  for (const Parameter& parameter : model.lora_parameters()) parameter.tensor.detach().fill_(0.05);
  const Documents documents = random_documents({12}, 9);
  at::NoGradGuard no_grad;
  const at::Tensor expected = model.logits(model.forward(to_device(pack(documents), at::kCPU))).select(0, 11);
  KvCache cache;
  EXPECT_LE(largest_difference(model.decode(documents[0], cache), expected), 1e-5);
}

}  // namespace
}  // namespace gemma_sft
