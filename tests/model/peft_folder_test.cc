#include "model/peft_folder.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

TEST(PeftFolder, IsOneWithAnAdapterConfigWhateverElseIsThere) {
  const TempDir dir;
  EXPECT_FALSE(is_adapter_folder(dir.path()));
  dir.write("adapter_config.json", "{}");
  EXPECT_TRUE(is_adapter_folder(dir.path()));
  dir.write("config.json", "{}");
  EXPECT_TRUE(is_adapter_folder(dir.path()));
  EXPECT_FALSE(is_adapter_folder(std::string(10000, 'a')));
}

TEST(PeftFolder, TensorsAreNamedByModuleAndMatrix) {
  const std::string name = "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight";
  EXPECT_EQ(to_string(LoraTensorName{"model.layers.3.self_attn.q_proj", LoraMatrix::kA}), name);
  const auto a = parse_lora_tensor_name(name), b = parse_lora_tensor_name("base_model.model.x.lora_B.weight");
  ASSERT_TRUE(a && b);
  EXPECT_EQ(a->module, "model.layers.3.self_attn.q_proj");
  EXPECT_EQ(a->matrix, LoraMatrix::kA);
  EXPECT_EQ(b->module, "x");
  EXPECT_EQ(b->matrix, LoraMatrix::kB);
}

TEST(PeftFolder, OtherNamesAreNoMatrixOfALayer) {
  for (const char* name : {"", "lora_A.weight", "base_model.model.lora_A.weight", "base_model.model..lora_A.weight",
                           "model.x.lora_A.weight", "base_model.model.x.lora_C.weight",
                           "base_model.model.x.lora_embedding_A", "base_model.model.x.lora_A.default.weight"}) {
    EXPECT_FALSE(parse_lora_tensor_name(name)) << name;
  }
}

}  // namespace
}  // namespace gemma_sft
