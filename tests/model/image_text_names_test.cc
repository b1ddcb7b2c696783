#include "model/image_text_names.h"

#include <gtest/gtest.h>

namespace gemma_sft {
namespace {

TEST(ImageTextNames, AreThoseOfTransformersAndBothSpellingsAreRead) {
  EXPECT_EQ(image_text_name("model.layers.0.mlp.up_proj"), "model.language_model.layers.0.mlp.up_proj");
  EXPECT_EQ(text_name("model.language_model.layers.0.mlp.up_proj"), "model.layers.0.mlp.up_proj");
  EXPECT_EQ(text_name("language_model.model.layers.0.mlp.up_proj"), "model.layers.0.mlp.up_proj");
  EXPECT_EQ(text_name("model.layers.0.mlp.up_proj"), "model.layers.0.mlp.up_proj");
  EXPECT_EQ(text_name("q_proj"), "q_proj");
}

}  // namespace
}  // namespace gemma_sft
