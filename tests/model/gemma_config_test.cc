#include "model/gemma_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "configs/error.h"
#include "data/files/file_system.h"

namespace gemma_sft {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::filesystem::path kConfigs = std::filesystem::path(GEMMA_SFT_SOURCE_DIR) / "tests" / "model" / "configs";

GemmaConfig published(const std::string& name) {
  return parse_gemma_config(read_file(kConfigs / (name + ".json")), name);
}

std::string error_of(const std::string& json) {
  try {
    parse_gemma_config(json, "config.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModel);
    return error.what();
  }
  return "";
}

std::vector<int64_t> global_layers(const GemmaConfig& config) {
  std::vector<int64_t> layers;
  for (size_t i = 0; i < config.layer_kinds.size(); ++i) {
    if (config.layer_kinds[i] == LayerKind::kGlobal) layers.push_back(static_cast<int64_t>(i));
  }
  return layers;
}

// A small config.json of each family, with `more` in front (keys and a comma).
std::string gemma_1(const std::string& more) {
  return "{" + more + R"("model_type": "gemma", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 128, "vocab_size": 100})";
}
std::string gemma_2(const std::string& more) {
  return "{" + more + R"("model_type": "gemma2", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 128, "vocab_size": 100})";
}
std::string gemma_3(const std::string& more) {
  return "{" + more +
         R"("model_type": "gemma3_text", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 128, "vocab_size": 100})";
}

TEST(GemmaConfig, ThePublishedFilesOfGemma1) {
  const GemmaConfig config = published("gemma-2b-it");
  EXPECT_EQ(config.family, Family::kGemma1);
  EXPECT_EQ(config.vocab_size, 256'000);
  EXPECT_EQ(config.hidden_size, 2048);
  EXPECT_EQ(config.intermediate_size, 16'384);
  EXPECT_EQ(config.num_layers, 18);
  EXPECT_EQ(config.num_heads, 8);
  EXPECT_EQ(config.num_kv_heads, 1);
  EXPECT_EQ(config.head_dim, 256);
  EXPECT_EQ(config.max_position_embeddings, 8192);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.query_scale, 1.0 / 16.0);
  EXPECT_EQ(config.attention_softcap, std::nullopt);
  EXPECT_EQ(config.logit_softcap, std::nullopt);
  EXPECT_EQ(config.rope_theta_global, 10'000);
  EXPECT_EQ(global_layers(config).size(), 18u);
  EXPECT_FALSE(config.qk_norm);
  EXPECT_FALSE(config.sandwich_norms);
  EXPECT_FALSE(config.image_text);
  EXPECT_EQ(config.dtype, "bfloat16");
  EXPECT_EQ(published("gemma-1.1-2b-it"), config);
  EXPECT_EQ(published("gemma-7b").num_kv_heads, 16);
}

TEST(GemmaConfig, ThePublishedFilesOfGemma2) {
  const GemmaConfig config = published("gemma-2-27b");
  EXPECT_EQ(config.family, Family::kGemma2);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_DOUBLE_EQ(config.query_scale, 1.0 / 12.0);  // 144^-0.5
  EXPECT_EQ(config.attention_softcap, 50.0);
  EXPECT_EQ(config.logit_softcap, 30.0);
  EXPECT_EQ(config.sliding_window, 4096);
  EXPECT_EQ(config.layer_kinds[0], LayerKind::kSliding);
  EXPECT_EQ(config.layer_kinds[1], LayerKind::kGlobal);
  EXPECT_EQ(global_layers(config).size(), 23u);
  EXPECT_TRUE(config.sandwich_norms);
  EXPECT_FALSE(config.qk_norm);
  EXPECT_EQ(config.dtype, "float32");
}

TEST(GemmaConfig, ThePublishedFilesOfGemma3) {
  const GemmaConfig config = published("gemma-3-270m-it");
  EXPECT_EQ(config.family, Family::kGemma3);
  EXPECT_EQ(global_layers(config), (std::vector<int64_t>{5, 11, 17}));
  EXPECT_EQ(config.rope_theta_global, 1'000'000);
  EXPECT_EQ(config.rope_theta_local, 10'000);
  EXPECT_EQ(config.rope_linear_factor_global, 1.0);
  EXPECT_EQ(config.sliding_window, 512);
  EXPECT_EQ(config.max_position_embeddings, 32'768);
  EXPECT_EQ(config.logit_softcap, std::nullopt);
  EXPECT_TRUE(config.qk_norm);
  EXPECT_TRUE(config.sandwich_norms);
  EXPECT_EQ(global_layers(published("gemma-3-1b-it")), (std::vector<int64_t>{5, 11, 17, 23}));
}

TEST(GemmaConfig, ImageTextFilesLeaveOutWhatEqualsTheDefaults) {
  const GemmaConfig config = published("gemma-3-4b-it");
  EXPECT_TRUE(config.image_text);
  EXPECT_EQ(config.vocab_size, 262'208);
  EXPECT_EQ(config.num_heads, 8);
  EXPECT_EQ(config.num_kv_heads, 4);
  EXPECT_EQ(config.head_dim, 256);
  EXPECT_EQ(config.max_position_embeddings, 131'072);
  EXPECT_EQ(config.rope_theta_global, 1'000'000);
  EXPECT_EQ(config.rope_linear_factor_global, 8.0);
  EXPECT_EQ(config.sliding_window, 1024);
  EXPECT_EQ(config.dtype, "bfloat16");
  EXPECT_DOUBLE_EQ(published("gemma-3-27b-it").query_scale, 1.0 / std::sqrt(168.0));
}

TEST(GemmaConfig, WhatTransformers5MakesOfAPublishedFileIsTheSameModel) {
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs)) {
    if (entry.path().extension() != ".json") continue;
    const std::filesystem::path rewritten = kConfigs / "transformers5" / entry.path().filename();
    EXPECT_EQ(parse_gemma_config(read_file(entry.path()), "old"), parse_gemma_config(read_file(rewritten), "new"))
        << entry.path();
    ++files;
  }
  EXPECT_EQ(files, 11u);
}

// Counts of the published models (their model cards; 4B without its vision part).
TEST(GemmaConfig, ParameterCountsOfThePublishedModels) {
  EXPECT_EQ(published("gemma-2b-it").parameter_count(), 2'506'172'416);
  EXPECT_EQ(published("gemma-7b").parameter_count(), 8'537'680'896);
  EXPECT_EQ(published("gemma-2-2b-it").parameter_count(), 2'614'341'888);
  EXPECT_EQ(published("gemma-2-9b-it").parameter_count(), 9'241'705'984);
  EXPECT_EQ(published("gemma-2-27b").parameter_count(), 27'227'128'320);
  EXPECT_EQ(published("gemma-3-270m-it").parameter_count(), 268'098'176);
  EXPECT_EQ(published("gemma-3-1b-it").parameter_count(), 999'885'952);
}

TEST(GemmaConfig, Gemma1ReadsHiddenActAndTakesGeluForItsTanhForm) {
  EXPECT_EQ(error_of(gemma_1(R"("hidden_act": "gelu", )")), "");
  EXPECT_EQ(error_of(gemma_1(R"("hidden_act": "gelu", "hidden_activation": null, )")), "");
  EXPECT_EQ(error_of(gemma_1(R"("hidden_act": "silu", )")),
            "config.json: \"hidden_act\" is the string \"silu\"; only \"gelu_pytorch_tanh\" is supported");
  EXPECT_THAT(error_of(gemma_1(R"("hidden_activation": "gelu", )")), HasSubstr("\"hidden_activation\""));
}

TEST(GemmaConfig, Gemma2And3ReadHiddenActivationWhereGeluIsTheExactForm) {
  for (const auto& json : {gemma_2(R"("hidden_activation": "gelu", )"), gemma_3(R"("hidden_activation": "gelu", )")}) {
    EXPECT_EQ(error_of(json),
              "config.json: \"hidden_activation\" is the string \"gelu\"; only \"gelu_pytorch_tanh\" is supported");
  }
  EXPECT_EQ(error_of(gemma_2(R"("hidden_act": "gelu", )")), "");
  EXPECT_THAT(error_of(gemma_3(R"("hidden_act": "relu", )")), HasSubstr("\"hidden_act\""));
}

TEST(GemmaConfig, SoftCapsAreTheDefaultsOfGemma2UntilTheFileSaysNull) {
  EXPECT_EQ(parse_gemma_config(gemma_2(""), "c").attention_softcap, 50.0);
  EXPECT_EQ(parse_gemma_config(gemma_2(R"("attn_logit_softcapping": null, )"), "c").attention_softcap, std::nullopt);
  EXPECT_EQ(parse_gemma_config(gemma_2(R"("final_logit_softcapping": 7, )"), "c").logit_softcap, 7.0);
  EXPECT_EQ(parse_gemma_config(gemma_3(R"("final_logit_softcapping": 30.0, )"), "c").logit_softcap, 30.0);
}

TEST(GemmaConfig, ThePadIdIsTransformersDefaultUntilTheFileSaysAnotherOne) {
  const auto pad_id = [](const std::string& member) {
    return parse_gemma_config(R"({"model_type": "gemma", "vocab_size": 9)" + member + "}", "config.json").pad_token_id;
  };
  EXPECT_EQ(pad_id(""), 0);
  EXPECT_EQ(pad_id(R"(, "pad_token_id": 8)"), 8);
  EXPECT_EQ(pad_id(R"(, "pad_token_id": -1)"), 8);  // as torch.nn.Embedding counts
  EXPECT_EQ(pad_id(R"(, "pad_token_id": null)"), std::nullopt);
  EXPECT_THAT(error_of(R"({"model_type": "gemma", "vocab_size": 9, "pad_token_id": 9})"), HasSubstr("pad_token_id"));
  // Of an image-text model, the text model's own counts.
  EXPECT_EQ(parse_gemma_config(R"({"model_type": "gemma3", "pad_token_id": 7, "text_config": {}})", "x").pad_token_id,
            0);
}

TEST(GemmaConfig, LayerTypesWinOverTheWrittenPattern) {
  const GemmaConfig listed = parse_gemma_config(
      gemma_3(R"("_sliding_window_pattern": 6, "layer_types": ["full_attention", "sliding_attention"], )"), "c");
  EXPECT_EQ(global_layers(listed), std::vector<int64_t>{0});
  EXPECT_EQ(global_layers(parse_gemma_config(gemma_3(R"("sliding_window_pattern": 2, )"), "c")),
            std::vector<int64_t>{1});
  EXPECT_EQ(global_layers(parse_gemma_config(gemma_3(R"("sliding_window_pattern": 1, )"), "c")).size(), 2u);
  EXPECT_EQ(global_layers(parse_gemma_config(gemma_3(""), "c")).size(), 0u);
}

TEST(GemmaConfig, RopeScalingGoesToTheGlobalLayersOnly) {
  const GemmaConfig config = parse_gemma_config(
      gemma_3(
          R"("rope_theta": 500, "rope_local_base_freq": 20, "rope_scaling": {"rope_type": "linear", "factor": 8}, )"),
      "c");
  EXPECT_EQ(config.rope_theta_global, 500);
  EXPECT_EQ(config.rope_theta_local, 20);
  EXPECT_EQ(config.rope_linear_factor_global, 8);
}

struct Refused {
  std::string json;
  std::string key;     // quoted in the message
  std::string detail;  // also in the message
};

class RefusedKey : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedKey, IsNamedWithItsValue) {
  const std::string message = error_of(GetParam().json);
  EXPECT_THAT(message, HasSubstr("config.json: \"" + GetParam().key + "\""));
  EXPECT_THAT(message, HasSubstr(GetParam().detail));
  EXPECT_THAT(message, Not(HasSubstr("problems:"))) << "one wrong key must give one problem";
}

INSTANTIATE_TEST_SUITE_P(
    Keys, RefusedKey,
    ::testing::Values(
        Refused{gemma_1(R"("tie_word_embeddings": false, )"), "tie_word_embeddings", "is false"},
        Refused{gemma_3(R"("attention_bias": true, )"), "attention_bias", "is true"},
        Refused{gemma_1(R"("mlp_bias": true, )"), "mlp_bias", "is true"},
        Refused{gemma_2(R"("attention_dropout": 0.1, )"), "attention_dropout", "0.1"},
        Refused{gemma_3(R"("use_bidirectional_attention": true, )"), "use_bidirectional_attention", "causal"},
        Refused{gemma_1(R"("use_bidirectional_attention": true, )"), "use_bidirectional_attention", "causal"},
        Refused{gemma_2(R"("quantization_config": {"quant_method": "gptq"}, )"), "quantization_config", "unquantized"},
        Refused{gemma_1(R"("rope_scaling": {"type": "linear", "factor": 2.0}, )"), "rope_scaling.type", "Gemma 3 only"},
        Refused{gemma_1(R"("rope_scaling": {"rope_type": "yarn", "factor": 2.0}, )"), "rope_scaling.rope_type", "yarn"},
        Refused{gemma_2(R"("rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, )"), "rope_scaling.rope_type",
                "dynamic"},
        Refused{gemma_3(R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, )"),
                "rope_scaling.rope_type", "llama3"},
        Refused{gemma_3(R"("rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2.0}}, )"),
                "rope_parameters.full_attention.rope_type", "yarn"},
        Refused{gemma_3(R"("rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}, )"),
                "rope_parameters.sliding_attention.rope_type", "full_attention"},
        Refused{gemma_3(R"("rope_parameters": {"rope_theta": 10000.0}, )"), "rope_parameters.rope_theta", "layer type"},
        Refused{gemma_3(R"("rope_scaling": {"rope_type": "linear"}, )"), "rope_scaling.factor", "factor"},
        Refused{gemma_3(R"("rope_scaling": {"type": "linear", "factor": 8.0}, )"), "rope_scaling.type", "rope_type"},
        Refused{gemma_3(R"("rope_scaling": {"factor": 8.0}, )"), "rope_scaling.factor", "linear"},
        Refused{gemma_3(R"("rope_theta": 5, "rope_parameters": {"full_attention": {"rope_theta": 6}}, )"), "rope_theta",
                "rope_parameters.full_attention.rope_theta"},
        Refused{gemma_3(R"("rope_scaling": {"rope_type": "linear", "factor": 4}, "rope_parameters":
                {"full_attention": {"rope_type": "linear", "factor": 8}}, )"),
                "rope_scaling", "another scaling"},
        Refused{gemma_1(R"("partial_rotary_factor": 0.5, )"), "partial_rotary_factor", "0.5"},
        Refused{gemma_2(R"("layer_types": ["sliding_attention", "chunked_attention"], )"), "layer_types",
                "chunked_attention"},
        Refused{gemma_3(R"("layer_types": ["full_attention"], )"), "layer_types", "1 values for 2 layers"},
        Refused{gemma_3(R"("layer_types": [], )"), "layer_types", "0 values for 2 layers"},
        Refused{gemma_1(R"("layer_types": ["full_attention", "sliding_attention"], )"), "layer_types",
                "sliding_attention"},
        Refused{gemma_3(R"("_sliding_window_pattern": 3, )"), "_sliding_window_pattern", "layer_types"},
        Refused{gemma_3(R"("sliding_window_pattern": 0, )"), "sliding_window_pattern", "integer from 1"},
        Refused{gemma_3(R"("sliding_window": null, )"), "sliding_window", "sliding_attention layers"},
        Refused{gemma_2(R"("sliding_window": 0, )"), "sliding_window", "integer from 1"},
        Refused{gemma_2(R"("sliding_window": 8, "sliding_window_size": 9, )"), "sliding_window_size", "says 8"},
        Refused{gemma_1(R"("sliding_window": 4096, )"), "sliding_window", "not known"},
        Refused{gemma_1(R"("final_logit_softcapping": 30.0, )"), "final_logit_softcapping", "not known"},
        Refused{gemma_3(R"("attn_logit_softcapping": 50.0, )"), "attn_logit_softcapping", "Gemma 3"},
        Refused{gemma_3(R"("num_experts": 8, )"), "num_experts", "delete the key"},
        Refused{gemma_3(R"("query_pre_attn_scalar": 0, )"), "query_pre_attn_scalar", "above 0"},
        Refused{gemma_2(R"("rms_norm_eps": -1e-6, )"), "rms_norm_eps", "above 0"},
        Refused{gemma_2(R"("max_position_embeddings": "8192", )"), "max_position_embeddings", "integer"},
        Refused{gemma_2(R"("torch_dtype": "int8", )"), "torch_dtype", "bfloat16"},
        Refused{gemma_2(R"("torch_dtype": "float32", "dtype": "bfloat16", )"), "torch_dtype", "bfloat16"},
        Refused{gemma_2(R"("architectures": ["Gemma2ForSequenceClassification"], )"), "architectures",
                "Gemma2ForCausalLM"},
        Refused{gemma_3(R"("architectures": ["Gemma3TextModel"], )"), "architectures", "Gemma3ForCausalLM"},
        Refused{gemma_3(R"("is_encoder_decoder": true, )"), "is_encoder_decoder", "is true"},
        Refused{gemma_3(R"("pruned_heads": {"0": [1]}, )"), "pruned_heads", "not supported"},
        Refused{R"({"model_type": "gemma3n"})", "model_type", "gemma3n"},
        Refused{R"({"model_type": "gemma4_text"})", "model_type", "gemma4_text"},
        Refused{R"({"model_type": "paligemma"})", "model_type", "paligemma"},
        Refused{R"({"model_type": "llama"})", "model_type", "only Gemma 1, 1.1, 2 and 3"},
        Refused{R"({"hidden_size": 64})", "model_type", "absent"},
        Refused{R"({"model_type": "gemma3"})", "text_config", "gemma3_text"},
        Refused{R"({"model_type": "gemma3", "text_config": []})", "text_config", "expected an object"},
        Refused{R"({"model_type": "gemma3", "text_config": {"model_type": "llama"}})", "text_config.model_type",
                "llama"},
        Refused{R"({"model_type": "gemma3", "text_config": {"attention_bias": true}})", "text_config.attention_bias",
                "true"},
        Refused{R"({"model_type": "gemma3", "text_config": {"final_logit_softcapping": 30.0}})",
                "text_config.final_logit_softcapping", "image-text"},
        Refused{R"({"model_type": "gemma3", "tie_word_embeddings": false, "text_config": {}})", "tie_word_embeddings",
                "false"},
        Refused{R"({"model_type": "gemma3", "hidden_size": 64, "text_config": {}})", "hidden_size", "not known"},
        Refused{R"({"model_type": "gemma", "num_attention_heads": 4, "num_key_value_heads": 3})", "num_key_value_heads",
                "divide"},
        Refused{R"({"model_type": "gemma", "head_dim": 15})", "head_dim", "even"},
        Refused{R"({"model_type": "gemma", "num_key_value_heads": null})", "num_key_value_heads", "is null"},
        Refused{gemma_1(R"("auto_map": {"AutoConfig": "configuration_own.OwnConfig"}, )"), "auto_map", "not known"},
        Refused{R"({"model_type": "gemma", "hidden_size": 0})", "hidden_size", "integer from 1"},
        Refused{R"({"model_type": "gemma", "hidden_size": 1e3})", "hidden_size", "integer from 1"},
        Refused{R"({"model_type": "gemma", "vocab_size": 99999999999999999999})", "vocab_size", "integer from 1"},
        Refused{R"({"model_type": "gemma", "num_hidden_layers": -3})", "num_hidden_layers", "integer from 1"}),
    [](const auto& refused) {
      std::string name = refused.param.key + "_" + std::to_string(refused.index);
      std::replace_if(
          name.begin(), name.end(), [](char c) { return c == '.'; }, '_');
      return name;
    });

TEST(GemmaConfig, KeysThatAreNullAreKeysThatSayNothing) {
  EXPECT_EQ(
      error_of(gemma_1(R"("final_logit_softcapping": null, "quantization_config": null, "rope_scaling": null, )")), "");
}

TEST(GemmaConfig, EveryProblemOfAFileIsReportedAtOnce) {
  EXPECT_EQ(
      error_of(gemma_1(R"("tie_word_embeddings": false, "attention_bias": true, "colour": "red", )")),
      "config.json: 3 problems:\n"
      "  \"tie_word_embeddings\" is false; only models whose head is tied to the embedding are supported\n"
      "  \"attention_bias\" is true; attention biases are not supported\n"
      "  \"colour\" is the string \"red\"; this key is not known, so its meaning cannot be honoured; if the model does "
      "not depend on it, delete the key from the file");
}

TEST(GemmaConfig, BrokenJsonIsNamedWithItsPlace) {
  EXPECT_THAT(error_of("{\n  \"model_type\": \"gemma\",\n}"), HasSubstr("config.json:3:1: expected"));
  EXPECT_THAT(error_of("{\"model_type\": \"gemma\", \"model_type\": \"gemma2\"}"), HasSubstr("config.json:1:"));
  EXPECT_THAT(error_of("[]"), HasSubstr("expected a JSON object"));
  EXPECT_NE(error_of(""), "");
}

// Whatever a file holds, the answer is a config or an Error (memory errors are for the sanitizer build to see).
TEST(GemmaConfig, DamagedFilesGiveAnErrorOrAConfigAndNothingElse) {
  std::mt19937_64 random(7);
  size_t refused = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs)) {
    if (entry.path().extension() != ".json") continue;
    const std::string original = read_file(entry.path());
    for (int round = 0; round < 300; ++round) {
      std::string text = original;
      for (uint64_t edits = 1 + random() % 3; edits > 0; --edits) {
        const size_t at = random() % text.size();
        switch (random() % 4) {
          case 0: text[at] = static_cast<char>(random()); break;
          case 1: text.erase(at, 1 + random() % 40); break;
          case 2: text.insert(at, text.substr(random() % text.size(), random() % 40)); break;
          default: text[at] = "{}[],:\"0-9e."[random() % 13]; break;
        }
        if (text.empty()) text = " ";
      }
      try {
        const GemmaConfig config = parse_gemma_config(text, "config.json");
        EXPECT_EQ(config.layer_kinds.size(), static_cast<size_t>(config.num_layers));
        EXPECT_EQ(config.num_heads % config.num_kv_heads, 0);
        EXPECT_GT(config.parameter_count(), 0);
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kModel);
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 1000u);
}

TEST(GemmaConfig, EveryPresetSurvivesBeingWrittenAndRead) {
  for (const std::string& name : preset_names()) {
    GemmaConfig config = find_preset(name).value();
    if (config.vocab_size == 0) config.vocab_size = 777;
    EXPECT_EQ(parse_gemma_config(to_config_json(config, "bfloat16"), name), config) << name;
  }
  EXPECT_EQ(find_preset("gemma-5"), std::nullopt);
}

TEST(GemmaConfig, PresetsAreThePublishedShapes) {
  EXPECT_EQ(*find_preset("gemma-2b"), published("gemma-2b-it"));
  EXPECT_EQ(*find_preset("gemma-7b"), published("gemma-7b"));
  EXPECT_EQ(*find_preset("gemma-2-2b"), published("gemma-2-2b-it"));
  EXPECT_EQ(*find_preset("gemma-2-9b"), published("gemma-2-9b-it"));
  EXPECT_EQ(*find_preset("gemma-3-270m"), published("gemma-3-270m-it"));
  EXPECT_EQ(*find_preset("gemma-3-1b"), published("gemma-3-1b-it"));
  GemmaConfig largest = published("gemma-2-27b");
  largest.dtype = "bfloat16";
  EXPECT_EQ(*find_preset("gemma-2-27b"), largest);
  GemmaConfig text_only = published("gemma-3-4b-it");
  text_only.image_text = false;
  EXPECT_EQ(*find_preset("gemma-3-4b"), text_only);
}

TEST(GemmaConfig, UnusualLayersAndScalesSurviveBeingWrittenAndRead) {
  GemmaConfig config = *find_preset("tiny-gemma-3");
  config.vocab_size = 100;
  config.layer_kinds[2] = LayerKind::kGlobal;
  config.layer_kinds[5] = LayerKind::kSliding;
  config.rope_linear_factor_global = 8.0;
  config.rope_theta_local = 123.5;
  config.logit_softcap = 7.25;
  config.rms_norm_eps = 1e-5;
  config.query_scale = 1.0 / std::sqrt(168.0);
  config.dtype = "float32";
  const GemmaConfig read = parse_gemma_config(to_config_json(config, "float32"), "c");
  EXPECT_EQ(read, config);
}

}  // namespace
}  // namespace gemma_sft
