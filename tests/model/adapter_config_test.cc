#include "model/adapter_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "configs/error.h"
#include "data/files/safetensors.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// As peft 0.21 writes it, with `more` in front (keys and a comma).
std::string peft_config(const std::string& more) {
  return "{" + more +
         R"("alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
    "base_model_name_or_path": "google/gemma-2b", "bias": "none", "corda_config": null, "ensure_weight_tying": false,
    "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
    "init_lora_weights": true, "layer_replication": null, "layers_pattern": null, "layers_to_transform": null,
    "loftq_config": {}, "lora_alpha": 32, "lora_bias": false, "lora_dropout": 0.05, "megatron_config": null,
    "megatron_core": "megatron.core", "modules_to_save": null, "peft_type": "LORA", "peft_version": "0.21.2",
    "qalora_group_size": 16, "r": 4, "rank_pattern": {}, "revision": null, "target_modules": ["q_proj", "v_proj"],
    "target_parameters": null, "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_dora": false,
    "use_qalora": false, "use_rslora": true})";
}

std::string without(std::string text, const std::string& part) { return text.erase(text.find(part), part.size()); }

std::string error_of(const TempDir& dir) {
  try {
    load_adapter_config(dir.path());
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModel);
    return error.what();
  }
  return "";
}

void write_tensors(const TempDir& dir, const std::vector<std::string>& names) {
  static const std::vector<float> zeros(4);
  std::vector<TensorSource> tensors;
  for (const std::string& name : names) {
    tensors.push_back({name, TensorDtype::kF32, {4, 1}, [] { return static_cast<const void*>(zeros.data()); }});
  }
  write_safetensors(real_file_system(), dir / "adapter_model.safetensors", tensors);
}

TEST(AdapterConfig, ReadsWhatPeftWrites) {
  const TempDir dir;
  dir.write("adapter_config.json", peft_config(""));
  const LoraOptions options = load_adapter_config(dir.path());
  EXPECT_EQ(options.rank, 4);
  EXPECT_EQ(options.alpha, 32);
  EXPECT_EQ(options.dropout, 0.05);
  EXPECT_TRUE(options.rslora);
  EXPECT_THAT(options.target_modules, ElementsAre("q_proj", "v_proj"));
  EXPECT_EQ(read_adapter_base(dir.path()).name, "google/gemma-2b");
  EXPECT_EQ(read_adapter_base(dir.path()).revision, std::nullopt);
}

TEST(AdapterConfig, ReadsWhatItWrites) {
  const TempDir dir;
  LoraOptions options;
  options.rank = 3;
  options.alpha = 7.5;
  options.dropout = 0.1;
  options.rslora = true;
  options.target_modules = {"model.layers.0.mlp.up_proj", "q_proj"};
  const std::string text = to_adapter_config_json(options, {"google/gemma \"2b\"", "v2"}, options.target_modules);
  dir.write("adapter_config.json", text);
  const LoraOptions read = load_adapter_config(dir.path());
  EXPECT_EQ(read.rank, options.rank);
  EXPECT_EQ(read.alpha, options.alpha);
  EXPECT_EQ(read.dropout, options.dropout);
  EXPECT_EQ(read.rslora, options.rslora);
  EXPECT_EQ(read.target_modules, options.target_modules);
  EXPECT_EQ(read_adapter_base(dir.path()).name, "google/gemma \"2b\"");
  EXPECT_EQ(read_adapter_base(dir.path()).revision, "v2");
  EXPECT_THAT(text, HasSubstr("\"lora_alpha\": 7.5,"));
  options.alpha = 16;
  EXPECT_THAT(to_adapter_config_json(options, {}, options.target_modules), HasSubstr("\"lora_alpha\": 16,\n"));
}

TEST(AdapterConfig, LayersGivenByOtherMeansThanNamesComeFromTheTensors) {
  const TempDir dir;
  write_tensors(dir, {"base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight",
                      "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight",
                      "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_A.weight",
                      "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_B.weight"});
  const std::string list = R"("target_modules": ["q_proj", "v_proj"],)";
  for (const std::string& text :
       {without(peft_config(R"("target_modules": ".*(q|up)_proj", )"), list),
        without(peft_config(R"("layers_to_transform": [0, 1], )"), "\"layers_to_transform\": null,"),
        without(peft_config(R"("exclude_modules": ["v_proj"], )"), "\"exclude_modules\": null,")}) {
    dir.write("adapter_config.json", text);
    EXPECT_THAT(load_adapter_config(dir.path()).target_modules,
                ElementsAre("model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj"));
  }
}

TEST(AdapterConfig, ANameThatMeansNoLayerOfTheAdapterIsPassedOver) {
  const TempDir dir;
  dir.write("adapter_config.json", peft_config(""));  // q_proj and v_proj
  write_tensors(dir, {"base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight",
                      "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"});
  EXPECT_THAT(load_adapter_config(dir.path()).target_modules, ElementsAre("q_proj"));
  write_tensors(dir, {"base_model.model.model.embed_tokens.lora_embedding_A"});
  EXPECT_THAT(error_of(dir), HasSubstr("\"target_modules\" names no module, and no tensor"));
}

TEST(AdapterConfig, WhatIsNotHonouredIsRefusedByName) {
  struct Case {
    std::string added, removed, key;
  };
  const std::vector<Case> cases = {
      {R"("use_dora": true, )", "\"use_dora\": false,", "use_dora"},
      {R"("modules_to_save": ["lm_head"], )", "\"modules_to_save\": null,", "modules_to_save"},
      {R"("bias": "all", )", "\"bias\": \"none\",", "bias"},
      {R"("rank_pattern": {"q_proj": 8}, )", "\"rank_pattern\": {},", "rank_pattern"},
      {R"("alpha_pattern": {"q_proj": 8}, )", "\"alpha_pattern\": {},", "alpha_pattern"},
      {R"("fan_in_fan_out": true, )", "\"fan_in_fan_out\": false,", "fan_in_fan_out"},
      {R"("lora_bias": true, )", "\"lora_bias\": false,", "lora_bias"},
      {R"("layer_replication": [[0, 4]], )", "\"layer_replication\": null,", "layer_replication"},
      {R"("trainable_token_indices": [1], )", "\"trainable_token_indices\": null,", "trainable_token_indices"},
      {R"("init_lora_weights": "pissa", )", "\"init_lora_weights\": true,", "init_lora_weights"},
      {R"("peft_type": "LOHA", )", "\"peft_type\": \"LORA\",", "peft_type"},
      {R"("something_new": {"a": 1}, )", "", "something_new"},
      {R"("lora_dropout": 1.0, )", "\"lora_dropout\": 0.05,", "lora_dropout"},
      {R"("r": 0, )", "\"r\": 4,", "r"},
      {"", "\"r\": 4,", "r"},
      {R"("target_modules": 3, )", R"("target_modules": ["q_proj", "v_proj"],)", "target_modules"},
  };
  const TempDir dir;
  for (const Case& c : cases) {
    const std::string text = peft_config(c.added);
    dir.write("adapter_config.json", c.removed.empty() ? text : without(text, c.removed));
    EXPECT_THAT(error_of(dir), HasSubstr("adapter_config.json: \"" + c.key + "\"")) << c.added;
  }
}

TEST(AdapterConfig, AnAdapterIsContinuedWithItsOwnScaleAndLayersOrNotAtAll) {
  const TempDir dir;
  dir.write("adapter_config.json", peft_config(""));  // r 4, alpha 32, rsLoRA, q_proj and v_proj
  const GemmaConfig config = *find_preset("tiny-gemma-3");
  const LoraOptions same{
      .rank = 4, .alpha = 32, .dropout = 0.5, .rslora = true, .target_modules = {"v_proj", "*.q_proj"}};
  EXPECT_NO_THROW(require_continuation(same, dir.path(), config));
  const auto problem = [&](const LoraOptions& asked) {
    try {
      require_continuation(asked, dir.path(), config);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  LoraOptions asked = same;
  asked.alpha = 16;
  asked.rslora = false;
  EXPECT_EQ(problem(asked),
            "lora.init_from: " + dir.path().string() +
                ": the adapter was made otherwise (lora.alpha is 16, lora.rslora is false); continue it "
                "with lora: {rank: 4, alpha: 32, rslora: true, target_modules: [q_proj, v_proj]}");
  asked = same;
  asked.rank = 8;
  EXPECT_THAT(problem(asked), HasSubstr("(lora.rank is 8)"));
  asked = same;
  asked.target_modules = {"q_proj"};
  EXPECT_THAT(problem(asked), HasSubstr("(lora.target_modules leaves out model.layers.0.self_attn.v_proj)"));
  asked.target_modules = {"q_proj", "v_proj", "up_proj"};
  EXPECT_THAT(problem(asked), HasSubstr("(lora.target_modules means also model.layers.0.mlp.up_proj)"));
  dir.write("adapter_config.json",
            without(peft_config(R"("alpha_pattern": {"q_proj": 8}, )"), "\"alpha_pattern\": {},"));
  EXPECT_THROW(require_continuation(same, dir.path(), config), Error);
}

// peft cuts a list of 20 entries and more to what sets them apart from layers that are not meant.
TEST(AdapterConfig, ASuffixOfAnImageTextModelsPathMeansThatLayerAlone) {
  const TempDir dir;
  std::string config = peft_config("");
  const std::string names = R"(["q_proj", "v_proj"])";
  config.replace(config.find(names), names.size(), R"(["language_model.layers.0.self_attn.q_proj", "up_proj", "x"])");
  dir.write("adapter_config.json", config);
  write_tensors(dir, {"base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight",
                      "base_model.model.model.language_model.layers.1.mlp.up_proj.lora_A.weight"});
  EXPECT_THAT(load_adapter_config(dir.path()).target_modules,
              ElementsAre("model.layers.0.self_attn.q_proj", "up_proj"));
}

TEST(AdapterConfig, ARankThatTheMatricesDoNotHaveIsRefusedBeforeRoomIsMadeForIt) {
  const TempDir dir;
  std::string config = peft_config("");
  config.replace(config.find("\"r\": 4"), 6, "\"r\": 1000000");
  dir.write("adapter_config.json", config);
  write_tensors(dir, {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"});
  EXPECT_EQ(error_of(dir), (dir / "adapter_config.json").string() +
                               ": \"r\" is 1000000, but \"base_model.model.model.layers.0.self_attn.q_proj.lora_A"
                               ".weight\" of adapter_model.safetensors has shape [4, 1]");
}

TEST(AdapterConfig, AnAbsentFileIsNamed) {
  const TempDir dir;
  EXPECT_EQ(error_of(dir),
            (dir / "adapter_config.json").string() + ": not found; expected an adapter folder as PEFT writes it");
}

}  // namespace
}  // namespace gemma_sft
