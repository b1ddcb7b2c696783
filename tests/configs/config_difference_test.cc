#include "configs/config_difference.h"

#include <gtest/gtest.h>

#include "configs/settings.h"
#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

std::string keys(const RunConfig& before, const RunConfig& now) {
  std::string list;
  for (const ConfigDifference& difference : training_differences(before, now)) {
    list += difference.key + ": " + difference.before + " -> " + difference.now + "\n";
  }
  return list;
}

TEST(ConfigDifference, EachKeyOfTrainingIsNamedWithBothValues) {
  const ConfigFolder folder;
  const RunConfig before = folder.load(kBase).config;
  RunConfig now = before;
  EXPECT_EQ(keys(before, now), "");
  now.training.learning_rate = 1e-3;
  now.training.precision = Precision::kBf16;
  now.model.base_model = "google/gemma-7b";
  now.training.shuffle = false;
  EXPECT_EQ(keys(before, now),
            "model.base_model: \"google/gemma-2b-it\" -> \"google/gemma-7b\"\n"
            "training.learning_rate: 2e-05 -> 0.001\n"
            "training.precision: not given -> bf16\n"
            "training.shuffle: true -> false\n");
}

TEST(ConfigDifference, ExamplesOfAllKeysAreSortedAsTheTableSays) {
  const RunConfig plain;
  for (const Setting& setting : settings()) {
    if (setting.example.empty() || setting.key == "training.num_epochs") continue;
    ConfigFolder folder;
    for (const std::string& need : setting.example_needs) {
      folder.set(need.substr(0, need.find('=')), need.substr(need.find('=') + 1));
    }
    const RunConfig before = folder.load(kBase).config;
    folder.set(setting.key, setting.example);
    const RunConfig now = folder.load(kBase).config;
    const bool expected = setting.changes_training;
    bool named = false;
    for (const ConfigDifference& difference : training_differences(before, now)) {
      named = named || difference.key == setting.key;
    }
    EXPECT_EQ(named, expected) << setting.key;
  }
}

TEST(ConfigDifference, TrainingLongerIsNoDifference) {
  RunConfig before;
  RunConfig now;
  before.training.max_steps = 10;
  now.training.max_steps = 20;
  now.training.num_epochs = 1;  // without effect beside max_steps
  EXPECT_EQ(keys(before, now), "");
  EXPECT_EQ(keys(now, before), "training.max_steps: 20 -> 10\n");
  before.training.max_steps = now.training.max_steps = std::nullopt;
  before.training.num_epochs = 2;
  now.training.num_epochs = 2.5;
  EXPECT_EQ(keys(before, now), "");
  EXPECT_EQ(keys(now, before), "training.num_epochs: 2.5 -> 2\n");
  now.training.max_steps = 5;
  EXPECT_EQ(keys(before, now), "training.max_steps: not given -> 5\n");
  EXPECT_EQ(keys(now, before), "training.max_steps: 5 -> not given\n");
}

TEST(ConfigDifference, KeysWithoutEffectOnBothSidesAreNoDifference) {
  RunConfig before;
  RunConfig now;
  now.lora.alpha = 8;
  now.lora.dropout = 0.5;
  EXPECT_EQ(keys(before, now), "");
  now.lora.rank = 4;
  EXPECT_EQ(keys(before, now), "lora.rank: 0 -> 4\nlora.alpha: 32 -> 8\nlora.dropout: 0 -> 0.5\n");
}

}  // namespace
}  // namespace gemma_sft
