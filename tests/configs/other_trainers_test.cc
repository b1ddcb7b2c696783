#include "configs/other_trainers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/settings.h"
#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

using ::testing::HasSubstr;

TEST(OtherTrainers, NamesAreFoundInAnySectionAndSpelling) {
  for (const char* key : {"save_steps", "output.save_steps", "Save-Steps", "a.b.save_steps"}) {
    const OtherTrainersKey* found = find_other_trainers_key(key);
    ASSERT_NE(found, nullptr) << key;
    EXPECT_EQ(found->setting, "output.checkpoint_every");
  }
  for (const char* key : {"", ".", "save_step", "training.batch_size", "zzz"}) {
    EXPECT_EQ(find_other_trainers_key(key), nullptr) << key;
  }
}

TEST(OtherTrainers, EachIsFoundAndNamesASettingOrARemedy) {
  for (const OtherTrainersKey& key : other_trainers_keys()) {
    EXPECT_EQ(find_other_trainers_key(key.name), &key) << key.name << ": the list is not in order";
    EXPECT_NE(key.setting.empty(), key.remedy.empty()) << key.name;
    EXPECT_TRUE(key.setting.empty() || find_setting(key.setting) != nullptr) << key.setting;
  }
}

TEST(OtherTrainers, TheConfigurationSaysWhatTheyAreHere) {
  const ConfigFolder folder;
  EXPECT_EQ(folder.problems("model_name_or_path: google/gemma-2b-it\n"
                            "dataset:\n"
                            "  data_path: train.jsonl\n"
                            "lora: {r: 8}\n"
                            "training:\n"
                            "  eval_steps: 10\n"
                            "  neftune_noise_alpha: 5\n"
                            "  load_in_4bit: true\n"),
            "c.yaml:1:1: model_name_or_path: unknown key; here it is model.base_model\n"
            "c.yaml:4:8: lora.r: unknown key; here it is lora.rank\n"
            "c.yaml:6:3: training.eval_steps: unknown key; here it is evaluation.every\n"
            "c.yaml:7:3: training.neftune_noise_alpha: unknown key; noise on the embeddings is not supported; remove "
            "it\n"
            "c.yaml:8:3: training.load_in_4bit: unknown key; quantized weights are not trained; lora.rank keeps the "
            "base model in the number format of its files");
  // What means something here already still does.
  EXPECT_EQ(folder.problems("model: {name: google/gemma-2b-it, max_length: 64}\n"
                            "dataset: {data_path: train.jsonl}\n"
                            "training: {save_steps: 10, dtype: float32}\n"),
            "");
}

}  // namespace
}  // namespace gemma_sft
