// The table walk: every key is documented, has a range whose edges hold, and changes what it says it changes.
#include "configs/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "configs/resolved_yaml.h"
#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

using ::testing::HasSubstr;

// A file that gives `key` the YAML `text`, with what the key needs in order to have an effect.
std::string file_with(const Setting& setting, const std::string& text) {
  std::map<std::string, std::string> values = {{"model.base_model", "google/gemma-2b-it"},
                                               {"dataset.data_path", "train.jsonl"}};
  for (const std::string& need : setting.example_needs) {
    values[need.substr(0, need.find('='))] = need.substr(need.find('=') + 1);
  }
  values[setting.key] = text;
  std::string yaml;
  std::set<std::string> open;
  for (const std::string& key : setting_keys()) {
    if (values.count(key) == 0) continue;
    std::string indent;
    size_t begin = 0;
    for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', begin)) {
      if (open.insert(key.substr(0, dot)).second) {
        yaml += indent + key.substr(begin, dot - begin) + ":\n";
      }
      indent += "  ";
      begin = dot + 1;
    }
    yaml += indent + key.substr(begin) + ": " + values[key] + "\n";
  }
  return yaml;
}

// Values that the setting must refuse: just outside its range, of another type, or none of its choices.
std::vector<std::string> wrong_values(const Setting& setting) {
  switch (setting.field.type) {
    case ValueType::kText: return {"\"\"", "\"  \"", "\"a\\nb\"", "17", "true", "[a]", "{a: b}"};
    case ValueType::kSwitch: return {"yes", "True", "1", "\"true\"", "[true]"};
    case ValueType::kChoice: return {"no_such_choice", "3", "[" + setting.field.choices[0] + "]"};
    case ValueType::kTextList: return {"[]", "q_proj", "[1]", "[a, a]", "[\"\"]", "[[a]]"};
    case ValueType::kWholeNumber: {
      std::vector<std::string> values = {"1.5", "four", "\"4\"", "010", "1e3", ".nan", "[4]"};
      values.push_back(std::to_string(setting.whole->minimum - 1));
      if (setting.whole->maximum < std::numeric_limits<int64_t>::max()) {
        values.push_back(std::to_string(setting.whole->maximum + 1));
      } else {
        values.push_back("9223372036854775808");
      }
      return values;
    }
    case ValueType::kNumber: {
      const NumberRange& range = *setting.number;
      const double below = range.with_minimum ? std::nextafter(range.minimum, -1e300) : range.minimum;
      const double above = range.with_maximum ? std::nextafter(range.maximum, 1e300) : range.maximum;
      char buffer[2][40];
      std::snprintf(buffer[0], sizeof(buffer[0]), "%.17g", below);
      std::snprintf(buffer[1], sizeof(buffer[1]), "%.17g", above);
      if (below == -std::numeric_limits<double>::denorm_min()) {
        std::snprintf(buffer[0], sizeof(buffer[0]), "-1e-300");
      }
      return {buffer[0], buffer[1], ".inf", "-.inf", ".nan", "\"0.5\"", "a lot", "1e999"};
    }
  }
  return {};
}

std::vector<std::string> edge_values(const Setting& setting) {
  if (setting.whole) {
    return {std::to_string(setting.whole->minimum), std::to_string(setting.whole->maximum)};
  }
  if (setting.number) {
    const NumberRange& range = *setting.number;
    const double low = range.with_minimum ? range.minimum : std::nextafter(range.minimum, 1e300);
    const double high = range.with_maximum ? range.maximum : std::nextafter(range.maximum, -1e300);
    char buffer[2][40];
    std::snprintf(buffer[0], sizeof(buffer[0]), "%.17g", low);
    std::snprintf(buffer[1], sizeof(buffer[1]), "%.17g", high);
    if (low == std::numeric_limits<double>::denorm_min()) {
      std::snprintf(buffer[0], sizeof(buffer[0]), "1e-300");
    }
    return {buffer[0], buffer[1]};
  }
  return setting.field.type == ValueType::kChoice ? setting.field.choices : std::vector<std::string>();
}

// How many fields the sections of RunConfig have. A new field does not compile here until it is counted, and does not
// pass until it has a row in the table.
size_t fields_of_run_config() {
  const RunConfig config;
  const auto& [base_model, revision, max_seq_length, accelerator, region] = config.model;
  const auto& [manifest, data, format, validation, fraction, bad, on_long, samples, control] = config.dataset;
  const auto& [steps, epochs, size, tokens, accumulation, rate, scheduler, floor, warm, ratio, decay, beta1, beta2,
               epsilon, norm, seed, precision, stochastic, shuffle, packing, checkpointing, deterministic, nonfinite,
               preflight, timeout_of_step, optimizer] = config.training;
  const auto& [rank, alpha, dropout, modules, rslora, from] = config.lora;
  const auto& [every, best, patience] = config.evaluation;
  const auto& [run_dir, checkpoint, keep, dtype, background, log_samples] = config.output;
  const auto& [present, url, project, experiment, spot, timeout, most_usd, kept] = config.tunix;
  const auto count = [](const auto&... fields) { return sizeof...(fields); };
  return count(base_model, revision, max_seq_length, accelerator, region) +
         count(manifest, data, format, validation, fraction, bad, on_long, samples, control) +
         count(steps, epochs, size, tokens, accumulation, rate, scheduler, floor, warm, ratio, decay, beta1, beta2,
               epsilon, norm, seed, precision, stochastic, shuffle, packing, checkpointing, deterministic, nonfinite,
               preflight, timeout_of_step, optimizer) +
         count(rank, alpha, dropout, modules, rslora, from) + count(every, best, patience) +
         count(run_dir, checkpoint, keep, dtype, background, log_samples) +
         count(present, url, project, experiment, spot, timeout, most_usd, kept);
}

TEST(Settings, EveryFieldOfRunConfigHasOneRow) {
  // `tunix.present` says that a section is there; it is no key.
  EXPECT_EQ(settings().size() + 1, fields_of_run_config());
  std::set<std::string> keys(setting_keys().begin(), setting_keys().end());
  EXPECT_EQ(keys.size(), settings().size());
}

TEST(Settings, EveryKeyIsDocumented) {
  for (const Setting& setting : settings()) {
    EXPECT_GE(setting.help.size(), 10u) << setting.key;
    EXPECT_EQ(setting.help.back(), '.') << setting.key;
    EXPECT_EQ(setting.field.optional, !setting.not_given.empty()) << setting.key;
    EXPECT_EQ(setting.field.type == ValueType::kWholeNumber, setting.whole.has_value()) << setting.key;
    EXPECT_EQ(setting.field.type == ValueType::kNumber, setting.number.has_value()) << setting.key;
    EXPECT_EQ(setting.field.type == ValueType::kChoice, !setting.field.choices.empty()) << setting.key;
    const bool has_one_value = setting.field.choices.size() == 1;
    EXPECT_EQ(setting.example.empty(), has_one_value) << setting.key;
    for (const std::string& need : setting.example_needs) {
      EXPECT_NE(find_setting(need.substr(0, need.find('='))), nullptr) << setting.key;
    }
  }
}

TEST(Settings, TheKeysOfTheIssueAreTheKeysOfTheTable) {
  const std::vector<std::string> expected = {"model.base_model",
                                             "model.revision",
                                             "model.max_seq_length",
                                             "model.tunix_job_config.accelerator",
                                             "model.tunix_job_config.region",
                                             "dataset.manifest_path",
                                             "dataset.data_path",
                                             "dataset.format",
                                             "dataset.validation_path",
                                             "dataset.validation_fraction",
                                             "dataset.on_bad_record",
                                             "dataset.on_long",
                                             "dataset.max_samples",
                                             "dataset.parse_control_tokens",
                                             "training.max_steps",
                                             "training.num_epochs",
                                             "training.batch_size",
                                             "training.batch_tokens",
                                             "training.gradient_accumulation_steps",
                                             "training.learning_rate",
                                             "training.lr_scheduler",
                                             "training.min_lr_ratio",
                                             "training.warmup_steps",
                                             "training.warmup_ratio",
                                             "training.weight_decay",
                                             "training.adam_beta1",
                                             "training.adam_beta2",
                                             "training.adam_epsilon",
                                             "training.max_grad_norm",
                                             "training.seed",
                                             "training.precision",
                                             "training.stochastic_rounding",
                                             "training.shuffle",
                                             "training.packing",
                                             "training.activation_checkpointing",
                                             "training.deterministic",
                                             "training.on_nonfinite",
                                             "training.preflight",
                                             "training.step_timeout",
                                             "training.optimizer",
                                             "lora.rank",
                                             "lora.alpha",
                                             "lora.dropout",
                                             "lora.target_modules",
                                             "lora.rslora",
                                             "lora.init_from",
                                             "evaluation.every",
                                             "evaluation.keep_best",
                                             "evaluation.early_stopping_patience",
                                             "output.run_dir",
                                             "output.checkpoint_every",
                                             "output.keep_checkpoints",
                                             "output.model_dtype",
                                             "output.background_save",
                                             "output.log_samples",
                                             "tunix.api_base_url",
                                             "tunix.project_id",
                                             "tunix.experiment_name",
                                             "tunix.spot",
                                             "tunix.timeout_seconds",
                                             "tunix.max_cost_usd",
                                             "tunix.keep_checkpoints"};
  EXPECT_EQ(setting_keys(), expected);
}

TEST(Settings, TheExampleOfAKeyChangesThatKeyAlone) {
  const ConfigFolder folder;
  for (const Setting& setting : settings()) {
    if (setting.example.empty()) continue;
    SCOPED_TRACE(setting.key);
    const LoadedConfig loaded = folder.load(file_with(setting, setting.example));
    // The same file without the key, but with what it needs.
    RunConfig without = loaded.config;
    setting.field.set(without, default_value(setting));
    EXPECT_NE(setting.field.get(loaded.config), default_value(setting));
    for (const Setting& other : settings()) {
      if (other.key != setting.key) {
        EXPECT_EQ(other.field.get(loaded.config), other.field.get(without)) << other.key;
      }
    }
    EXPECT_NE(to_yaml(loaded.config), to_yaml(without));
    const bool is_output = setting.key.compare(0, 7, "output.") == 0;
    const bool guards = setting.key == "training.preflight" || setting.key == "training.step_timeout";
    EXPECT_EQ(identity_yaml(loaded.config) == identity_yaml(without), is_output || guards);
    EXPECT_EQ(loaded.origins.at(setting.key).substr(0, folder.path().string().size()), folder.path().string());
  }
}

TEST(Settings, ValuesOutsideTheRangeAreRefusedWithPlaceKeyAndExpectation) {
  const ConfigFolder folder;
  for (const Setting& setting : settings()) {
    const std::vector<std::string> values = wrong_values(setting);
    EXPECT_GE(values.size(), 3u);
    for (const std::string& value : values) {
      const std::string message = folder.problems(file_with(setting, value));
      EXPECT_THAT(message, HasSubstr(setting.key + ": ")) << value;
      EXPECT_THAT(message, ::testing::MatchesRegex("c\\.yaml:[0-9]+:[0-9]+: (.|\n)*")) << setting.key << ": " << value;
    }
    EXPECT_THAT(folder.problems(file_with(setting, "")), HasSubstr(setting.key + ": has no value"));
  }
}

TEST(Settings, TheEdgesOfTheRangeAreAccepted) {
  const ConfigFolder folder;
  for (const Setting& setting : settings()) {
    for (const std::string& value : edge_values(setting)) {
      EXPECT_EQ(folder.problems(file_with(setting, value)), "") << setting.key << ": " << value;
    }
  }
}

TEST(Settings, NullEmptiesOptionalKeysOnly) {
  const ConfigFolder folder;
  for (const Setting& setting : settings()) {
    if (setting.key == "dataset.data_path") continue;  // required where there is no manifest
    const std::string message = folder.problems(file_with(setting, "null"));
    if (setting.field.optional) {
      EXPECT_EQ(message, "") << setting.key;
    } else {
      EXPECT_THAT(message, HasSubstr(setting.key + ": has no value")) << setting.key;
    }
  }
}

TEST(Settings, RefusedValuesGiveTheirReason) {
  const ConfigFolder folder;
  int refused_values = 0;
  for (const Setting& setting : settings()) {
    for (const RefusedValue& refused : setting.refused) {
      ++refused_values;
      EXPECT_THAT(folder.problems(file_with(setting, refused.value)),
                  HasSubstr(setting.key + ": " + refused.value + " is refused: " + refused.why));
    }
  }
  EXPECT_EQ(refused_values, 8);  // model.revision: flax, four of precision, three of optimizer
}

TEST(Settings, OnlyWhatReachesTheWeightsChangesTraining) {
  EXPECT_TRUE(changes_training("training.learning_rate"));
  EXPECT_TRUE(changes_training("dataset.data_path"));
  EXPECT_TRUE(changes_training("model.base_model"));
  for (const Setting& setting : settings()) {
    const std::string section = setting.key.substr(0, setting.key.find('.'));
    if (section == "output" || section == "evaluation" || section == "tunix") {
      EXPECT_FALSE(changes_training(setting.key)) << setting.key;
    }
  }
  EXPECT_FALSE(changes_training("no.such.key"));
}

TEST(Settings, SectionsAreTheBeginningsOfKeys) {
  for (const char* section : {"model", "model.tunix_job_config", "training", "tunix"}) {
    EXPECT_TRUE(is_section(section)) << section;
  }
  for (const char* other : {"", "mod", "training.batch_size", "data", "training.batch"}) {
    EXPECT_FALSE(is_section(other)) << other;
  }
}

}  // namespace
}  // namespace gemma_sft
