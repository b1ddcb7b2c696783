#include "configs/aliases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/choice_names.h"
#include "configs/secrets.h"
#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Aliases, EveryKeyOfTheOtherFilesIsASettingOrAnAlias) {
  // The union of the keys of tunix-rt's training files and of its generated manifest.
  for (const char* key : {"model.base_model",
                          "model.name",
                          "model.model_id",
                          "model.revision",
                          "model.max_length",
                          "model.padding",
                          "model.truncation",
                          "model.tunix_job_config.accelerator",
                          "model.tunix_job_config.region",
                          "training.num_epochs",
                          "training.num_steps",
                          "training.batch_size",
                          "training.per_device_batch_size",
                          "training.gradient_accumulation_steps",
                          "training.learning_rate",
                          "training.warmup_steps",
                          "training.warmup_ratio",
                          "training.lr_scheduler",
                          "training.optimizer",
                          "training.weight_decay",
                          "training.max_seq_length",
                          "training.logging_steps",
                          "training.save_steps",
                          "training.save_every_steps",
                          "training.seed",
                          "training.device",
                          "training.dtype",
                          "training.use_bfloat16",
                          "system_instruction",
                          "data.format",
                          "data.shuffle",
                          "data.shuffle_seed",
                          "dataset.manifest_path",
                          "dataset.format",
                          "dataset.path",
                          "output.checkpoint_dir",
                          "output.save_metrics",
                          "output.metrics_file",
                          "output.save_manifest",
                          "output.manifest_file",
                          "output.run_dir",
                          "output.output_dir",
                          "output.checkpoint_every",
                          "tunix.api_base_url",
                          "tunix.project_id",
                          "tunix.experiment_name",
                          "m34_provenance",
                          "meta",
                          "version",
                          "runner",
                          "mode"}) {
    EXPECT_TRUE((find_setting(key) != nullptr) != (find_alias(key) != nullptr)) << key;
  }
}

TEST(Aliases, EachStandsForASettingOrSaysWhyItHasNoEffect) {
  for (const Alias& alias : aliases()) {
    EXPECT_NE(alias.target.empty(), alias.why.empty()) << alias.key;
    if (!alias.target.empty()) {
      EXPECT_NE(find_setting(alias.target), nullptr) << alias.key;
    }
    EXPECT_FALSE(names_secret(alias.key)) << alias.key;
  }
}

TEST(Aliases, AnOldFileLoadsAndSaysWhatHasNoEffect) {
  const ConfigFolder folder;
  const LoadedConfig loaded = folder.load(
      "model:\n"
      "  name: \"google/gemma-2b-it\"\n"
      "  max_length: 512\n"
      "  padding: \"max_length\"\n"
      "  truncation: true\n"
      "training:\n"
      "  num_steps: 50\n"
      "  learning_rate: 1.0e-5\n"
      "  per_device_batch_size: 1\n"
      "  optimizer: \"adamw\"\n"
      "  save_steps: 25\n"
      "  logging_steps: 10\n"
      "  dtype: bfloat16\n"
      "  device: auto\n"
      "system_instruction: \"You are helpful: always.\"\n"
      "data:\n"
      "  format: \"tunix_sft\"\n"
      "  shuffle: false\n"
      "  shuffle_seed: 42\n"
      "dataset:\n"
      "  path: rows.jsonl\n"
      "output:\n"
      "  checkpoint_dir: \"checkpoint-final\"\n"
      "  save_metrics: true\n"
      "  output_dir: runs\n"
      "meta:\n"
      "  note: {by: me}\n");
  const RunConfig& config = loaded.config;
  EXPECT_EQ(config.model.base_model, "google/gemma-2b-it");
  EXPECT_EQ(config.model.max_seq_length, 512);
  EXPECT_EQ(config.training.max_steps, 50);
  EXPECT_EQ(config.training.batch_size, 1);
  EXPECT_EQ(config.training.precision, Precision::kBf16Mixed);
  EXPECT_FALSE(config.training.shuffle);
  EXPECT_EQ(config.dataset.format, DataFormat::kTunixSft);
  EXPECT_EQ(config.dataset.data_path, "rows.jsonl");
  EXPECT_EQ(config.output.checkpoint_every, 25);
  EXPECT_EQ(config.output.run_dir, "runs");
  EXPECT_EQ(folder.short_names(loaded.origins.at("training.max_steps")), "c.yaml:7:14 as training.num_steps");
  std::vector<std::string> warnings;
  for (const std::string& warning : loaded.warnings) {
    warnings.push_back(folder.short_names(warning));
  }
  EXPECT_THAT(warnings,
              ElementsAre("c.yaml:4:3: model.padding: has no effect here: rows are packed, or padded to the longest "
                          "of their micro-batch (training.packing)",
                          "c.yaml:5:3: model.truncation: has no effect here: dataset.on_long says what becomes of "
                          "long rows",
                          "c.yaml:12:3: training.logging_steps: has no effect here: every step is written to "
                          "metrics.jsonl",
                          "c.yaml:14:3: training.device: has no effect here: the device belongs to the machine, not "
                          "to the run; choose it with --device",
                          "c.yaml:15:1: system_instruction: has no effect here: a system text belongs in the "
                          "rows, as a system message in `messages`",
                          "c.yaml:19:3: data.shuffle_seed: has no effect here: training.seed gives the order of the "
                          "rows",
                          "c.yaml:23:3: output.checkpoint_dir: has no effect here: the name is fixed, so that other "
                          "tools find it: checkpoint-<step>/",
                          "c.yaml:24:3: output.save_metrics: has no effect here: metrics are always written",
                          "c.yaml:26:1: meta: has no effect here: notes are not read"));
}

TEST(Aliases, WhatIsNotSupportedIsRefusedByName) {
  const ConfigFolder folder;
  EXPECT_THAT(folder.problems(kBase + "training:\n  device: tpu\n"),
              HasSubstr("c.yaml:6:11: training.device: tpu is refused: TPUs are reached through"));
  EXPECT_THAT(folder.problems(kBase + "training:\n  dtype: float16\n"),
              HasSubstr("c.yaml:6:10: training.dtype: fp16 is refused: Gemma's activations overflow"));
  EXPECT_THAT(folder.problems(kBase + "training:\n  optimizer: adafactor\n"),
              HasSubstr("c.yaml:6:14: training.optimizer: adafactor is refused: "));
  EXPECT_THAT(folder.problems("model:\n  model_id: distilgpt2\ndataset:\n  path: x.jsonl\n"),
              HasSubstr("c.yaml:2:13: model.base_model: expected a Gemma model, found \"distilgpt2\""));
  EXPECT_EQ(folder.problems(kBase + "mode: dpo\n"),
            "c.yaml:5:7: mode: expected sft, found \"dpo\"; supervised fine-tuning is all there is");
  EXPECT_EQ(folder.problems(kBase + "mode: sft\n"), "");
}

TEST(Aliases, AKeyAndItsAliasMayAgreeButNotContradict) {
  const ConfigFolder folder;
  const LoadedConfig agreed = folder.load(kBase + "training:\n  batch_size: 2\n  per_device_batch_size: 2\n");
  EXPECT_EQ(agreed.config.training.batch_size, 2);
  ASSERT_EQ(agreed.warnings.size(), 1u);
  EXPECT_EQ(folder.short_names(agreed.warnings[0]),
            "c.yaml:7:26: training.per_device_batch_size: says the same as training.batch_size "
            "(c.yaml:6:15); one of them is enough");
  EXPECT_EQ(folder.problems(kBase + "training:\n  batch_size: 2\n  per_device_batch_size: 4\n"),
            "c.yaml:7:26: training.per_device_batch_size: contradicts training.batch_size "
            "(c.yaml:6:15), which is the same setting; keep one of them");
  EXPECT_EQ(folder.problems("model:\n  name: google/gemma-2b\n  base_model: google/gemma-7b\n"
                            "dataset:\n  data_path: x.jsonl\n"),
            "c.yaml:3:15: model.base_model: contradicts model.base_model (c.yaml:2:9 as model.name), "
            "which is the same setting; keep one of them");
}

TEST(Aliases, TheCommandLineKnowsThemToo) {
  ConfigFolder folder;
  folder.set("training.num_steps", "12");
  folder.set("training.use_bfloat16", "true");
  folder.set("training.logging_steps", "5");
  const LoadedConfig loaded = folder.load(kBase + "training:\n  max_steps: 3\n");
  EXPECT_EQ(loaded.config.training.max_steps, 12);
  EXPECT_EQ(loaded.config.training.precision, Precision::kBf16Mixed);
  EXPECT_EQ(loaded.origins.at("training.max_steps"), "--set as training.num_steps");
  ASSERT_EQ(loaded.warnings.size(), 1u);
  EXPECT_EQ(loaded.warnings[0],
            "--set training.logging_steps=5: training.logging_steps: has no effect here: every step "
            "is written to metrics.jsonl");
}

}  // namespace
}  // namespace gemma_sft
