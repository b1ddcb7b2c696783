#include "configs/settings_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "configs/aliases.h"
#include "configs/settings.h"
#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// The schema of one key.
json schema_of(const json& schema, const std::string& key) {
  json node = schema;
  size_t begin = 0;
  while (begin <= key.size()) {
    const size_t dot = std::min(key.find('.', begin), key.size());
    node = node.at("properties").at(key.substr(begin, dot - begin));
    begin = dot + 1;
  }
  return node;
}

TEST(SettingsText, TheSchemaDescribesEveryKey) {
  const json schema = json::parse(schema_json());
  EXPECT_EQ(schema.at("$schema"), "https://json-schema.org/draft/2020-12/schema");
  EXPECT_EQ(schema.at("additionalProperties"), false);
  EXPECT_EQ(schema.at("required"), json({"model", "dataset"}));
  EXPECT_EQ(schema.at("properties").at("model").at("required"), json({"base_model"}));
  for (const Setting& setting : settings()) {
    const json node = schema_of(schema, setting.key);
    EXPECT_THAT(node.at("description").get<std::string>(), HasSubstr(setting.help)) << setting.key;
    if (setting.whole) {
      EXPECT_EQ(node.at("minimum"), setting.whole->minimum) << setting.key;
      EXPECT_EQ(node.at("maximum"), setting.whole->maximum) << setting.key;
    }
    if (setting.number) {
      const bool inclusive = setting.number->with_minimum;
      EXPECT_EQ(node.at(inclusive ? "minimum" : "exclusiveMinimum"), setting.number->minimum);
    }
    if (!setting.required) {
      EXPECT_TRUE(node.contains("default")) << setting.key;
    }
    if (setting.field.optional) {
      EXPECT_EQ(node.at("type").at(1), "null") << setting.key;
    }
  }
  EXPECT_EQ(schema_of(schema, "training.lr_scheduler").at("enum"), json({"linear", "cosine", "constant"}));
  EXPECT_EQ(schema_of(schema, "training.precision").at("enum"), json({"fp32", "bf16_mixed", "bf16", nullptr}));
  EXPECT_EQ(schema_of(schema, "training.learning_rate").at("default"), 2e-5);
  EXPECT_EQ(schema_of(schema, "lora.target_modules").at("default").size(), 7u);
}

TEST(SettingsText, ExplainSaysEverythingAboutAKey) {
  EXPECT_EQ(explain_key("training.precision"),
            "training.precision\n"
            "  bf16_mixed computes in bf16 with fp32 master weights and moments, bf16 keeps "
            "everything in bf16.\n"
            "  type:    choice\n"
            "  expects: one of fp32, bf16_mixed, bf16\n"
            "  default: not given: bf16_mixed on CUDA, fp32 on the CPU\n"
            "  source:  gemma-sft\n"
            "  refused: fp16: Gemma's activations overflow half precision, whose largest value is "
            "65504; use bf16_mixed, bf16 or fp32\n"
            "  refused: float16: it is fp16, in which Gemma's activations overflow; use bf16_mixed, bf16 or fp32\n"
            "  refused: bfloat16: write bf16_mixed, which keeps fp32 weights beside, or bf16\n"
            "  refused: float32: write fp32\n"
            "  aliases: training.dtype, training.use_bfloat16\n"
            "  example: precision: bf16_mixed\n"
            "  resume:  a changed value is another training run\n");
  EXPECT_THAT(explain_key("output.run_dir"), HasSubstr("variable:TRAINING_OUTPUT_DIR, TRAINING_OUTPUT_BUCKET\n"));
  for (const std::string& key : setting_keys()) {
    EXPECT_THAT(explain_key(key), HasSubstr(find_setting(key)->help));
    EXPECT_EQ(json::parse(explain_key_json(key)).at("key"), key);
  }
}

// true and false stay truth values, as files write them.
TEST(SettingsText, TheSchemaOfASwitchWithAThirdPositionTakesBoth) {
  const json schema = json::parse(schema_json());
  const json& setting = schema.at("properties").at("training").at("properties").at("activation_checkpointing");
  EXPECT_EQ(setting.at("type"), json({"string", "boolean"}));
  EXPECT_EQ(setting.at("enum"), json({false, true, "auto"}));
  EXPECT_EQ(setting.at("default"), json(false));
}

TEST(SettingsText, ExplainKnowsAliasesAndSections) {
  EXPECT_EQ(explain_key("training.num_steps"), "training.num_steps\n  stands for training.max_steps.\n");
  EXPECT_EQ(explain_key("training.logging_steps"),
            "training.logging_steps\n  has no effect here: every step is written to "
            "metrics.jsonl.\n");
  EXPECT_EQ(explain_key("model.tunix_job_config"),
            "model.tunix_job_config\n  a section with these keys:\n"
            "  model.tunix_job_config.accelerator: Accelerator of a job on the Tunix service, such as "
            "tpu-v3-8.\n"
            "  model.tunix_job_config.region: Region of a job on the Tunix service, such as "
            "us-central1.\n");
  for (const Alias& alias : aliases()) {
    const json explained = json::parse(explain_key_json(alias.key));
    EXPECT_EQ(explained.at("alias_of").is_null(), alias.target.empty()) << alias.key;
  }
  EXPECT_EQ(json::parse(explain_key_json("lora")).at("keys").size(), 6u);
}

TEST(SettingsText, ExplainNamesTheNearestKeyOnAMiss) {
  const auto message = [](const std::string& key) -> std::string {
    try {
      explain_key(key);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message("training.bacth_size"), "training.bacth_size: unknown key; did you mean training.batch_size?");
  EXPECT_EQ(message("batch_size"), "batch_size: unknown key; did you mean training.batch_size?");
  EXPECT_THAT(message("qqqqqqqq"), HasSubstr("unknown key; the nearest known one is "));
  EXPECT_THROW(explain_key_json("nothing.here"), Error);
}

TEST(SettingsText, ShowSaysWhereEachValueComesFrom) {
  ConfigFolder folder;
  folder.set("training.seed", "7");
  folder.environment["TRAINING_OUTPUT_DIR"] = "there";
  const LoadedConfig loaded = folder.load(kBase + "lora: {rank: 4, target_modules: [q_proj]}\n");
  const std::string text = folder.short_names(show_config(loaded));
  EXPECT_THAT(text, HasSubstr("model.base_model                      google/gemma-2b-it"));
  EXPECT_THAT(text, ::testing::ContainsRegex("\nmodel.revision +not given +default\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("\ntraining.seed +7 +--set\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("\noutput.run_dir +there +TRAINING_OUTPUT_DIR\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("\nlora.target_modules +.q_proj. +c.yaml:5:33\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), static_cast<long>(settings().size()));

  const json shown = json::parse(show_config_json(loaded));
  EXPECT_EQ(shown.at("file"), loaded.file);
  EXPECT_TRUE(shown.at("warnings").empty());
  ASSERT_EQ(shown.at("settings").size(), settings().size());
  const json& first = shown.at("settings").at(0);
  EXPECT_EQ(first.at("key"), "model.base_model");
  EXPECT_EQ(first.at("value"), "google/gemma-2b-it");
  EXPECT_EQ(folder.short_names(first.at("origin").get<std::string>()), "c.yaml:2:15");
}

TEST(SettingsText, ShowIsJsonWhateverTheFileIsCalled) {
  ConfigFolder folder;
  LoadedConfig loaded = folder.load(kBase);
  loaded.file = "a\x9b\x1b.yaml";
  EXPECT_EQ(json::parse(show_config_json(loaded)).at("file"), "a\ufffd\x1b.yaml");
}

// The tables of configs/README.md stand between markers. With GEMMA_SFT_WRITE_TABLES set in the environment this test
// writes them instead.
TEST(SettingsText, TheTablesOfTheReadmeAreThoseOfTheProgram) {
  const std::string file = std::string(GEMMA_SFT_SOURCE_DIR) + "/configs/README.md";
  std::string text = file_text(file);
  const std::string before = text;
  for (const auto& [name, table] :
       {std::pair{"settings", settings_markdown()}, std::pair{"aliases", aliases_markdown()},
        std::pair{"environment", environment_markdown()}}) {
    const std::string begin_mark = std::string("<!-- begin ") + name + " -->\n";
    const std::string end_mark = std::string("<!-- end ") + name + " -->\n";
    const size_t begin = text.find(begin_mark);
    const size_t end = text.find(end_mark);
    ASSERT_NE(begin, std::string::npos) << name;
    ASSERT_NE(end, std::string::npos) << name;
    const size_t from = begin + begin_mark.size();
    text.replace(from, end - from, table);
  }
  if (std::getenv("GEMMA_SFT_WRITE_TABLES") != nullptr) std::ofstream(file, std::ios::binary) << text;
  EXPECT_EQ(text, before) << "run this test with GEMMA_SFT_WRITE_TABLES=1 to write them";
}

}  // namespace
}  // namespace gemma_sft
