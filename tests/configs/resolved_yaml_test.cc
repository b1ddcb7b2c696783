#include "configs/resolved_yaml.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "configs/settings.h"
#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

// A valid value of the setting, over its whole range.
std::string random_value(const Setting& setting, std::mt19937_64& random) {
  const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
  switch (setting.field.type) {
    case ValueType::kSwitch: return random() % 2 == 0 ? "true" : "false";
    case ValueType::kChoice: return setting.field.choices[random() % setting.field.choices.size()];
    case ValueType::kTextList: {
      static const std::string lists[] = {"[q_proj]", "['*', \"*.3.mlp.?p_proj\"]", "[\"model.layers.0.*\", k_proj]"};
      return lists[random() % 3];
    }
    case ValueType::kText: {
      if (setting.text_problem == nullptr || setting.key.compare(0, 8, "dataset.") == 0) {
        static const std::string texts[] = {"\"a b: c # d\"",  "'it''s [x]'",
                                            "\"q\\\"\\\\ é\"", "\"- x\"",
                                            "plain",           "\"\\u0085\\u00a0\\u2028\\uFEFF\\U0001F600 x\""};
        return texts[random() % 6];
      }
      return setting.example;
    }
    case ValueType::kWholeNumber: {
      const int64_t low = setting.whole->minimum;
      const double span = static_cast<double>(setting.whole->maximum) - static_cast<double>(low);
      const double offset = std::exp(unit * std::log(span)) - 1;
      return std::to_string(low + static_cast<int64_t>(offset));
    }
    case ValueType::kNumber: {
      char buffer[40];
      const double span = setting.number->maximum - setting.number->minimum;
      const double value = setting.number->minimum + span * std::pow(unit, 4);
      std::snprintf(buffer, sizeof(buffer), "%.17g", value == 0 ? 1e-9 * span : value);
      return buffer;
    }
  }
  return "";
}

TEST(ResolvedYaml, IsWhatItShouldBe) {
  RunConfig config;
  config.model.base_model = "google/gemma-7b-it";
  config.model.region = "us-central1";
  config.dataset.data_path = "a \"b\".jsonl";
  config.training.learning_rate = 2e-5;
  config.training.precision = Precision::kBf16;
  config.training.batch_tokens = 8192;
  config.lora.rank = 8;
  config.lora.target_modules = {"q_proj", "v_proj"};
  config.tunix.present = true;
  config.tunix.project_id = "p";
  EXPECT_EQ(to_yaml(config),
            "model:\n"
            "  base_model: \"google/gemma-7b-it\"\n"
            "  tunix_job_config:\n"
            "    region: \"us-central1\"\n"
            "dataset:\n"
            "  data_path: \"a \\\"b\\\".jsonl\"\n"
            "  format: training_example\n"
            "  validation_fraction: 0\n"
            "  on_bad_record: fail\n"
            "  on_long: fail\n"
            "  parse_control_tokens: false\n"
            "training:\n"
            "  num_epochs: 3\n"
            "  batch_tokens: 8192\n"
            "  gradient_accumulation_steps: 1\n"
            "  learning_rate: 2e-05\n"
            "  lr_scheduler: linear\n"
            "  min_lr_ratio: 0\n"
            "  weight_decay: 0.01\n"
            "  adam_beta1: 0.9\n"
            "  adam_beta2: 0.999\n"
            "  adam_epsilon: 1e-08\n"
            "  max_grad_norm: 1\n"
            "  seed: 42\n"
            "  precision: bf16\n"
            "  shuffle: true\n"
            "  packing: true\n"
            "  activation_checkpointing: false\n"
            "  deterministic: false\n"
            "  on_nonfinite: stop\n"
            "  preflight: true\n"
            "  optimizer: adamw\n"
            "lora:\n"
            "  rank: 8\n"
            "  alpha: 32\n"
            "  dropout: 0\n"
            "  target_modules: [\"q_proj\", \"v_proj\"]\n"
            "  rslora: false\n"
            "evaluation:\n"
            "  keep_best: false\n"
            "output:\n"
            "  run_dir: \"artifacts/training_runs\"\n"
            "  checkpoint_every: 500\n"
            "  keep_checkpoints: 2\n"
            "  log_samples: true\n"
            "tunix:\n"
            "  project_id: \"p\"\n");
}

TEST(ResolvedYaml, LoadingItAgainGivesTheSameConfiguration) {
  std::mt19937_64 random(3);
  const ConfigFolder folder;
  const ConfigFolder again;
  int with_lora = 0;
  for (int round = 0; round < 400; ++round) {
    ConfigFolder source;
    const bool lora = random() % 2 == 0;
    const bool by_tokens = random() % 2 == 0;
    const bool by_steps = random() % 2 == 0;
    const bool by_path = random() % 2 == 0;
    bool constant = false, bf16_weights = false;
    for (const Setting& setting : settings()) {
      const std::string& key = setting.key;
      if (random() % 3 == 0 && key != "lora.rank") continue;
      if (key.compare(0, 5, "lora.") == 0 && !lora) continue;
      if (key == "training.batch_size" && by_tokens) continue;
      if (key == "training.batch_tokens" && !by_tokens) continue;
      if (key == "training.warmup_steps" && !by_steps) continue;
      if (key == "training.warmup_ratio" && by_steps) continue;
      if (key == "dataset.validation_path" && !by_path) continue;
      if (key == "dataset.validation_fraction" && by_path) continue;
      if (key == "dataset.parse_control_tokens") continue;
      if (key.compare(0, 11, "evaluation.") == 0) continue;
      if (key == "training.min_lr_ratio" && constant) continue;
      if (key == "training.stochastic_rounding" && !bf16_weights) continue;
      std::string value = random_value(setting, random);
      if (key == "lora.rank" && value == "0") value = "1";
      if (key == "training.lr_scheduler") constant = value == "constant";
      if (key == "training.precision") bf16_weights = value == "bf16" && !lora;
      source.set(key, value);
    }
    source.set("dataset.validation_fraction", by_path ? "null" : "0.25");
    source.set("evaluation.every", "7");
    const RunConfig config = source.load(kBase).config;
    with_lora += config.lora.rank > 0 ? 1 : 0;
    const std::string yaml = to_yaml(config);
    const RunConfig reloaded = again.load(yaml).config;
    ASSERT_EQ(reloaded, config) << yaml;
    ASSERT_EQ(to_yaml(reloaded), yaml);
    ASSERT_EQ(identity_yaml(reloaded), identity_yaml(config));
  }
  EXPECT_GT(with_lora, 100);
}

TEST(ResolvedYaml, AnEmptyTunixSectionSurvives) {
  const ConfigFolder folder;
  const RunConfig config = folder.load(kBase + "tunix:\n").config;
  ASSERT_TRUE(config.tunix.present);
  EXPECT_EQ(folder.load(to_yaml(config)).config, config);
}

TEST(ResolvedYaml, TheIdentityDependsOnValuesAndNotOnHowTheyWereWritten) {
  ConfigFolder folder;
  const std::string identity = identity_yaml(folder.load(kBase).config);
  EXPECT_EQ(identity_yaml(folder
                              .load("# note\ndataset: {data_path: 'train.jsonl'}\n"
                                    "training: {learning_rate: 0.00002, seed: 42}\n"
                                    "model: {base_model: \"google/gemma-2b-it\"}\n"
                                    "output: {run_dir: elsewhere, checkpoint_every: 3}\n")
                              .config),
            identity);
  EXPECT_NE(identity_yaml(folder.load(kBase + "training: {seed: 43}\n").config), identity);
  EXPECT_EQ(identity.find("output"), std::string::npos);
  folder.environment["TUNIX_PROJECT_ID"] = "mine";
  folder.environment["TRAINING_OUTPUT_DIR"] = "there";
  EXPECT_EQ(identity_yaml(folder.load(kBase).config), identity);
}

}  // namespace
}  // namespace gemma_sft
