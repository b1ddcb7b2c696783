#include "configs/module_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

TEST(ModulePattern, MeansAModuleByItsPathItsTailOrAGlob) {
  const std::string path = "model.layers.3.self_attn.q_proj";
  for (const char* pattern : {"model.layers.3.self_attn.q_proj", "q_proj", "self_attn.q_proj", "*.q_proj", "*",
                              "*q_proj", "model.layers.?.self_attn.*", "*.3.*", "model.layers.*.q_*"}) {
    EXPECT_TRUE(matches_target(path, pattern)) << pattern;
  }
  for (const char* pattern : {"", "proj", "_proj", "k_proj", "layers", "*.4.*", "model.layers.?", "q_proj.weight", "?",
                              "*.self_attn", "Q_PROJ"}) {
    EXPECT_FALSE(matches_target(path, pattern)) << pattern;
  }
}

TEST(ModulePattern, OneThatMeansNoLayerOfAnyGemmaIsAProblem) {
  for (const char* pattern : {"q_proj", "mlp.down_proj", "*", "*_proj", "model.layers.17.self_attn.v_proj", "*.61.*",
                              "model.layers.4095.mlp.*", "layers.2.mlp.up_proj", "*.??.*", "*.2?.*", "model.layers.1*",
                              "*.?.mlp.*", "*s.?2.*"}) {
    EXPECT_EQ(target_problem(pattern), "") << pattern;
  }
  for (const char* pattern : {"query_key_value", "c_attn", "qproj", "Q_PROJ", "lm_head", "embed_tokens", "self_attn",
                              "model.layers.0", "model.layers.x.mlp.up_proj", "wq", ".*_proj", "q_proj|v_proj"}) {
    EXPECT_THAT(target_problem(pattern), testing::HasSubstr("which has q_proj, k_proj")) << pattern;
  }
  EXPECT_THAT(target_problem("all-linear"), testing::HasSubstr("leave lora.target_modules out"));
}

TEST(ModulePattern, TheConfigurationNamesThePlace) {
  const ConfigFolder folder;
  EXPECT_EQ(folder.problems("model: {base_model: google/gemma-2b}\n"
                            "dataset: {data_path: a.jsonl}\n"
                            "lora:\n"
                            "  rank: 4\n"
                            "  target_modules: [q_proj, query_key_value]\n"),
            "c.yaml:5:19: lora.target_modules: found \"query_key_value\" in the list; it is no linear layer of a "
            "Gemma, which has q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj in every block");
}

}  // namespace
}  // namespace gemma_sft
