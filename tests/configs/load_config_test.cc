#include "configs/load_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

#include "configs/settings.h"
#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(LoadConfig, AMinimalFileGetsTheDefaults) {
  const ConfigFolder folder;
  const LoadedConfig loaded = folder.load(kBase);
  RunConfig expected;
  expected.model.base_model = "google/gemma-2b-it";
  expected.dataset.data_path = "train.jsonl";
  EXPECT_EQ(loaded.config, expected);
  EXPECT_TRUE(loaded.warnings.empty());
  EXPECT_EQ(loaded.origins.size(), settings().size());
  EXPECT_EQ(folder.short_names(loaded.origins.at("model.base_model")), "c.yaml:2:15");
  EXPECT_EQ(loaded.origins.at("training.seed"), "default");
}

TEST(LoadConfig, EveryKindOfValueArrives) {
  const ConfigFolder folder;
  const RunConfig config = folder
                               .load(
                                   "model: {base_model: 'google/gemma-3-1b-it', revision: v1, max_seq_length: 512}\n"
                                   "dataset:\n"
                                   "  manifest_path: \"m.json\"\n"
                                   "  format: trace\n"
                                   "  validation_fraction: 0.1\n"
                                   "  on_bad_record: skip\n"
                                   "  on_long: truncate\n"
                                   "training:\n"
                                   "  learning_rate: 2e-5\n"
                                   "  num_epochs: 0.5\n"
                                   "  batch_tokens: 4096\n"
                                   "  lr_scheduler: cosine\n"
                                   "  warmup_ratio: 0.1\n"
                                   "  precision: bf16_mixed\n"
                                   "  shuffle: false\n"
                                   "  seed: 9223372036854775807\n"
                                   "lora:\n"
                                   "  rank: 8\n"
                                   "  target_modules:\n"
                                   "    - q_proj\n"
                                   "    - \"v_proj\"\n"
                                   "evaluation: {keep_best: true}\n"
                                   "output: {model_dtype: fp16}\n"
                                   "tunix:\n")
                               .config;
  EXPECT_EQ(config.model.base_model, "google/gemma-3-1b-it");
  EXPECT_EQ(config.model.revision, "v1");
  EXPECT_EQ(config.model.max_seq_length, 512);
  EXPECT_EQ(config.dataset.manifest_path, "m.json");
  EXPECT_EQ(config.dataset.format, DataFormat::kTrace);
  EXPECT_EQ(config.dataset.validation_fraction, 0.1);
  EXPECT_EQ(config.dataset.on_bad_record, OnBadRecord::kSkip);
  EXPECT_EQ(config.dataset.on_long, OnLong::kTruncate);
  EXPECT_EQ(config.training.learning_rate, 2e-5);
  EXPECT_EQ(config.training.num_epochs, 0.5);
  EXPECT_EQ(config.training.batch_tokens, 4096);
  EXPECT_EQ(config.training.lr_scheduler, Scheduler::kCosine);
  EXPECT_EQ(config.training.warmup_ratio, 0.1);
  EXPECT_EQ(config.training.precision, Precision::kBf16Mixed);
  EXPECT_FALSE(config.training.shuffle);
  EXPECT_EQ(config.training.seed, 9223372036854775807u);
  EXPECT_EQ(config.lora.rank, 8);
  EXPECT_THAT(config.lora.target_modules, ElementsAre("q_proj", "v_proj"));
  EXPECT_TRUE(config.evaluation.keep_best);
  EXPECT_EQ(config.output.model_dtype, ModelDtype::kFp16);
  EXPECT_TRUE(config.tunix.present);
}

TEST(LoadConfig, AnAbsentFileSaysNotFound) {
  const ConfigFolder folder;
  try {
    folder.load_file(folder.path() / "absent.yaml");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_EQ(folder.short_names(error.what()),
              "Config file not found: absent.yaml; give --config a YAML file such as "
              "configs/sft_tiny.yaml");
  }
  EXPECT_THROW(folder.load_file(""), Error);
  EXPECT_THROW(folder.load_file(folder.path()), Error);
}

TEST(LoadConfig, AnEmptyFileAndAFileOfAnotherShapeAreRefused) {
  const ConfigFolder folder;
  EXPECT_EQ(folder.problems("# nothing\n"),
            "c.yaml:1:1: the file is empty; a configuration needs at least model.base_model and "
            "dataset.data_path");
  EXPECT_EQ(folder.problems("- model\n"), "c.yaml:1:1: expected sections such as model: and dataset:, found a list");
  EXPECT_EQ(folder.problems("training: 5\n" + kBase),
            "c.yaml:1:11: training: expected a section with keys below it, found 5");
  EXPECT_EQ(folder.problems(kBase + "training: [1]\n"),
            "c.yaml:5:11: training: expected a section with keys below it, found a list");
}

TEST(LoadConfig, ASyntaxErrorHasItsPlace) {
  const ConfigFolder folder;
  EXPECT_EQ(folder.problems("model:\n  base_model: [a\n"),
            "c.yaml:3:1: not valid YAML: end of sequence flow not found; check the indentation, "
            "colons and quotes here and on the line before");
}

TEST(LoadConfig, AllProblemsOfAFileAreReportedAtOnceInItsOrder) {
  const ConfigFolder folder;
  EXPECT_EQ(folder.problems("model:\n"
                            "  base_model: google/gemma-2b-it\n"
                            "training:\n"
                            "  batch_size: four\n"
                            "  gradient_accumulation_steps: 010\n"
                            "  learning_rate: \"2e-5\"\n"
                            "  warmup_steps: 1e3\n"
                            "  num_epochs: .inf\n"
                            "  weight_decay: 1.5\n"
                            "  shuffle: yes\n"
                            "  seed: -1\n"
                            "  seed: 1\n"
                            "  lr_scheduler: cosin\n"
                            "  precision: fp16\n"
                            "  optimizer: adafactor\n"
                            "  max_steps:\n"
                            "  bacth_size: 3\n"
                            "  adam_beta1: [1]\n"
                            "lora:\n"
                            "  target_modules: q_proj\n"
                            "output:\n"
                            "  run_dir: 42\n"
                            "  checkpoint_every: 1_000\n"
                            "batch_size: 4\n"
                            "training.batch_size: 4\n"
                            "trainning:\n"
                            "  seed: 1\n"
                            "qqqqqq: 1\n"),
            "c.yaml:1:1: dataset.data_path: required, but not given; write the JSONL file with the "
            "training rows, or a manifest as dataset.manifest_path\n"
            "c.yaml:4:15: training.batch_size: expected a whole number from 1 to 65536, found \"four\"\n"
            "c.yaml:5:32: training.gradient_accumulation_steps: expected a whole number from 1 to 65536, "
            "found 010; a leading zero means octal to some readers, write 10\n"
            "c.yaml:6:18: training.learning_rate: expected a number above 0 and up to 1, found the quoted "
            "text \"2e-5\"; remove the quotes\n"
            "c.yaml:7:17: training.warmup_steps: expected a whole number from 0 to 1000000000, found 1e3; "
            "write 1000\n"
            "c.yaml:8:15: training.num_epochs: expected a number above 0 and up to 1000000, found .inf; "
            "only finite numbers are accepted\n"
            "c.yaml:9:17: training.weight_decay: expected a number from 0 to 1, found 1.5\n"
            "c.yaml:10:12: training.shuffle: expected true or false, found \"yes\"; write true\n"
            "c.yaml:11:9: training.seed: expected a whole number from 0 to 9223372036854775807, found -1\n"
            "c.yaml:12:3: training.seed: duplicate key; it stands on line 11 already\n"
            "c.yaml:13:17: training.lr_scheduler: expected one of linear, cosine, constant, found "
            "\"cosin\"; did you mean cosine?\n"
            "c.yaml:14:14: training.precision: fp16 is refused: Gemma's activations overflow half "
            "precision, whose largest value is 65504; use bf16_mixed, bf16 or fp32\n"
            "c.yaml:15:14: training.optimizer: adafactor is refused: this trainer's optimizer is adamw, and "
            "to train with it unasked would be silent; say adamw, with lora.rank or precision: bf16 where memory is "
            "short\n"
            "c.yaml:16:3: training.max_steps: has no value; expected a whole number from 1 to 1000000000, "
            "or null for: training.num_epochs decides\n"
            "c.yaml:17:3: training.bacth_size: unknown key; did you mean training.batch_size?\n"
            "c.yaml:18:15: training.adam_beta1: expected a number from 0 and below 1, found a list\n"
            "c.yaml:20:19: lora.target_modules: expected a list of names such as [q_proj, v_proj], found "
            "\"q_proj\"; put it into brackets: [q_proj]\n"
            "c.yaml:22:12: output.run_dir: expected text, found the number 42; put it into quotes: "
            "\"42\"\n"
            "c.yaml:23:21: output.checkpoint_every: expected a whole number from 0 to 1000000000, found "
            "\"1_000\"; write 1000\n"
            "c.yaml:24:1: batch_size: unknown key; did you mean training.batch_size?\n"
            "c.yaml:25:1: training.batch_size: keys are nested in this file; write batch_size on a line "
            "of its own below training:\n"
            "c.yaml:26:1: trainning: unknown key; did you mean the section training?\n"
            "c.yaml:28:1: qqqqqq: unknown key; the nearest known one is the section model, and `gemma-sft "
            "config schema` lists all");
}

TEST(LoadConfig, WhatIsRequiredIsAskedForOnce) {
  const ConfigFolder folder;
  EXPECT_EQ(folder.problems("training:\n  seed: 1\n"),
            "c.yaml:1:1: model.base_model: required, but not given; write the hub id of a Gemma "
            "model, such as google/gemma-2b-it, or a folder\n"
            "c.yaml:1:1: dataset.data_path: required, but not given; write the JSONL file with the "
            "training rows, or a manifest as dataset.manifest_path");
  EXPECT_EQ(folder.problems("dataset:\n  format: trace\nmodel:\n  base_modle: x\n"),
            "c.yaml:1:1: dataset.data_path: required, but not given; write the JSONL file with the "
            "training rows, or a manifest as dataset.manifest_path\n"
            "c.yaml:4:3: model.base_modle: unknown key; did you mean model.base_model?");
}

TEST(LoadConfig, AManifestOrADataPathWillDo) {
  const ConfigFolder folder;
  EXPECT_EQ(folder.problems("model: {base_model: google/gemma-2b}\ndataset: {manifest_path: m.json}\n"), "");
  EXPECT_EQ(folder.problems("model: {base_model: google/gemma-2b}\ndataset: {data_path: d.jsonl}\n"), "");
  ConfigFolder with_flag;
  with_flag.assignments.push_back({"dataset.data_path", "d.jsonl", "--data"});
  EXPECT_EQ(with_flag.problems("model: {base_model: google/gemma-2b}\n"), "");
}

TEST(LoadConfig, ContradictoryPairsNameBothPlaces) {
  const ConfigFolder folder;
  const auto problems = [&](const std::string& rest) { return folder.problems(kBase + rest); };
  EXPECT_EQ(problems("training:\n  warmup_steps: 10\n  warmup_ratio: 0.1\n"),
            "c.yaml:7:17: training.warmup_ratio: contradicts training.warmup_steps (c.yaml:6:17); "
            "keep one of them");
  EXPECT_EQ(problems("training:\n  batch_tokens: 512\n  batch_size: 4\n"),
            "c.yaml:7:15: training.batch_size: contradicts training.batch_tokens (c.yaml:6:17); keep "
            "one of them");
  EXPECT_EQ(problems("  validation_path: v.jsonl\n  validation_fraction: 0.1\n"),
            "c.yaml:6:24: dataset.validation_fraction: contradicts dataset.validation_path "
            "(c.yaml:5:20); keep one of them");
  EXPECT_EQ(problems("training:\n  lr_scheduler: constant\n  min_lr_ratio: 0.1\n"),
            "c.yaml:7:17: training.min_lr_ratio: has no effect with training.lr_scheduler: constant, "
            "which never falls; remove one of them");
  EXPECT_EQ(problems("  format: tokens\n  parse_control_tokens: true\n"),
            "c.yaml:6:25: dataset.parse_control_tokens: has no effect with dataset.format: tokens, "
            "whose rows are ids already; remove it");
  EXPECT_EQ(problems("training:\n  precision: bf16_mixed\n  stochastic_rounding: true\n"),
            "c.yaml:7:24: training.stochastic_rounding: has no effect without training.precision: bf16 and all weights "
            "trained (lora.rank: 0); remove it");
  EXPECT_EQ(problems("lora:\n  alpha: 16\n  rslora: true\n"),
            "c.yaml:6:10: lora.alpha: has no effect while lora.rank is 0; set lora.rank to train "
            "LoRA matrices, or remove this\n"
            "c.yaml:7:11: lora.rslora: has no effect while lora.rank is 0; set lora.rank to train "
            "LoRA matrices, or remove this");
  EXPECT_EQ(problems("lora:\n  rank: 0\n  init_from: a/b/c\n"),
            "c.yaml:7:14: lora.init_from: has no effect while lora.rank is 0; set lora.rank to train "
            "LoRA matrices, or remove this");
  EXPECT_EQ(problems("evaluation:\n  keep_best: true\n  early_stopping_patience: 2\n"),
            "c.yaml:6:14: evaluation.keep_best: needs validation data; set dataset.validation_path "
            "or dataset.validation_fraction\n"
            "c.yaml:7:28: evaluation.early_stopping_patience: needs validation data; set "
            "dataset.validation_path or dataset.validation_fraction");
}

TEST(LoadConfig, PairsThatDoNotContradictAreAccepted) {
  const ConfigFolder folder;
  EXPECT_EQ(folder.problems(kBase + "training: {max_steps: 5, num_epochs: 2}\n"), "");
  EXPECT_EQ(folder.problems(kBase + "training: {warmup_steps: null, warmup_ratio: 0.1}\n"), "");
  EXPECT_EQ(folder.problems(kBase + "training: {lr_scheduler: constant, warmup_steps: 5}\n"), "");
  EXPECT_EQ(folder.problems(kBase + "  validation_fraction: 0.1\nevaluation: {keep_best: true}\n"), "");
  EXPECT_EQ(folder.problems(kBase + "lora: {rank: 4, init_from: a/b/c}\n"), "");
}

TEST(LoadConfig, WhatHasNoEffectHereIsAWarning) {
  const ConfigFolder folder;
  const LoadedConfig loaded = folder.load(
      "model:\n  base_model: ./some_folder\n  revision: v1\n"
      "dataset:\n  data_path: x.jsonl\nevaluation:\n  every: 5\n");
  ASSERT_EQ(loaded.warnings.size(), 2u);
  EXPECT_EQ(folder.short_names(loaded.warnings[0]),
            "c.yaml:3:13: model.revision: has no effect, because model.base_model is a folder");
  EXPECT_EQ(folder.short_names(loaded.warnings[1]),
            "c.yaml:7:10: evaluation.every: has no effect without dataset.validation_path or "
            "dataset.validation_fraction");
}

TEST(LoadConfig, WhatTrainsOtherwiseThanItLooksIsAWarning) {
  const ConfigFolder folder;
  const auto warnings = [&](const std::string& yaml) {
    std::string text;
    for (const std::string& warning : folder.load(kBase + yaml).warnings) text += folder.short_names(warning) + "\n";
    return text;
  };
  EXPECT_EQ(warnings("training:\n  num_epochs: 3\n  max_steps: 10\n"),
            "c.yaml:6:15: training.num_epochs: has no effect, because training.max_steps wins; keep one of them\n");
  EXPECT_EQ(warnings("training:\n  precision: bf16\n"),
            "c.yaml:6:14: training.precision: bf16 weights lose updates below a 512th of their size, as most are; set "
            "training.stochastic_rounding: true, or precision: bf16_mixed where there is memory for it\n");
  for (const char* chosen : {"  stochastic_rounding: false\n", "  stochastic_rounding: true\n", "lora: {rank: 4}\n"}) {
    EXPECT_EQ(warnings(std::string("training:\n  precision: bf16\n") + chosen), "") << chosen;
  }
}

TEST(LoadConfig, OtherWordsForAValueGetTheRightOne) {
  const ConfigFolder folder;
  EXPECT_EQ(folder.problems(kBase + "training: {precision: float32, optimizer: adamw_torch}\n"),
            "c.yaml:5:23: training.precision: float32 is refused: write fp32\n"
            "c.yaml:5:43: training.optimizer: adamw_torch is refused: write adamw");
}

TEST(LoadConfig, TextThatIsNoPathIsRefused) {
  const ConfigFolder folder;
  const auto problems = [&](const std::string& run_dir) {
    return folder.problems(kBase + "output:\n  run_dir: " + run_dir + "\n");
  };
  EXPECT_EQ(problems("~/runs"),
            "c.yaml:6:12: output.run_dir: found \"~/runs\"; ~ is not expanded; write the whole path");
  EXPECT_EQ(problems("${HOME}/runs"),
            "c.yaml:6:12: output.run_dir: found \"${HOME}/runs\"; variables are not expanded; write "
            "the path itself");
  EXPECT_EQ(problems("/data/$USER/runs"),
            "c.yaml:6:12: output.run_dir: found \"/data/$USER/runs\"; variables are not expanded; write "
            "the path itself");
  EXPECT_EQ(problems("costs_in_$"), "");
  EXPECT_EQ(problems("s3://bucket/runs"),
            "c.yaml:6:12: output.run_dir: found \"s3://bucket/runs\"; s3:// is not supported; write "
            "a folder or gs://bucket/folder");
  EXPECT_EQ(problems("gs:///runs"),
            "c.yaml:6:12: output.run_dir: found \"gs:///runs\"; no bucket after gs://; write "
            "gs://bucket/folder");
  EXPECT_EQ(problems("\"\""), "c.yaml:6:12: output.run_dir: must not be empty");
  EXPECT_EQ(problems("gs://bucket/runs"), "");
  EXPECT_EQ(folder.problems(kBase + "tunix:\n  api_base_url: api.tunix.ai\n"),
            "c.yaml:6:17: tunix.api_base_url: found \"api.tunix.ai\"; write an address such as "
            "https://api.tunix.ai/v1");
}

TEST(LoadConfig, LongAndStrangeTextIsShownShortAndOnOneLine) {
  const ConfigFolder folder;
  const std::string message =
      folder.problems(kBase + "training:\n  seed: \"a\\nb\\e[31m" + std::string(5000, 'x') + "\"\n");
  EXPECT_LT(message.size(), 300u);
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 0);
  EXPECT_THAT(message, HasSubstr("found \"a\\nb\\u001b[31mxxx"));
  const std::string key = folder.problems(kBase + std::string(1000, 'k') + ": 1\n");
  EXPECT_LT(key.size(), 400u);
}

// ---- Secrets.

TEST(LoadConfig, SecretsAreRefusedAndNeverPrinted) {
  const ConfigFolder folder;
  const std::string message = folder.problems(kBase +
                                              "tunix:\n"
                                              "  api_key: canary1\n"
                                              "  project_id: tunix_sk_live_canary2\n"
                                              "  api_base_url: https://user:canary3@api.tunix.ai/v1\n"
                                              "  database_url: postgresql://canary4\n"
                                              "training:\n"
                                              "  seed: tunix_sk_canary5\n"
                                              "  hf_token: canary6\n"
                                              "  tunix_sk_canary7: 1\n"
                                              "meta:\n"
                                              "  deep: [{password: canary8}, hf_abcdefghijklmnopqrstuvwxyzcanary9]\n"
                                              "unknown:\n"
                                              "  token: canary10\n");
  EXPECT_THAT(message, Not(HasSubstr("canary")));
  EXPECT_EQ(message,
            "c.yaml:6:3: tunix.api_key: secrets are not accepted here; set the environment variable "
            "TUNIX_API_KEY (in the shell or in .env) and remove this\n"
            "c.yaml:7:15: tunix.project_id: the value holds a secret, which is not accepted here; give "
            "secrets in environment variables (TUNIX_API_KEY, DATABASE_URL) or in .env\n"
            "c.yaml:8:17: tunix.api_base_url: the value holds a secret, which is not accepted here; give "
            "secrets in environment variables (TUNIX_API_KEY, DATABASE_URL) or in .env\n"
            "c.yaml:9:3: tunix.database_url: secrets are not accepted here; set the environment variable "
            "DATABASE_URL (in the shell or in .env) and remove this\n"
            "c.yaml:11:9: training.seed: the value holds a secret, which is not accepted here; give "
            "secrets in environment variables (TUNIX_API_KEY, DATABASE_URL) or in .env\n"
            "c.yaml:12:3: training.hf_token: secrets are not accepted here; remove this: models are read "
            "from the local Hugging Face cache, which needs no token\n"
            "c.yaml:13:3: training.tunix_sk_***: unknown key; did you mean the section tunix?\n"
            "c.yaml:15:11: meta.deep.password: secrets are not accepted here; set environment variables "
            "(TUNIX_API_KEY, DATABASE_URL, in the shell or in .env) and remove this\n"
            "c.yaml:15:31: meta.deep: the value holds a secret, which is not accepted here; give secrets "
            "in environment variables (TUNIX_API_KEY, DATABASE_URL) or in .env\n"
            "c.yaml:16:1: unknown: unknown key; the nearest known one is the section lora, and `gemma-sft "
            "config schema` lists all\n"
            "c.yaml:17:3: unknown.token: secrets are not accepted here; set the environment variable "
            "TUNIX_API_KEY (in the shell or in .env) and remove this");
}

TEST(LoadConfig, SecretsOnTheCommandLineAndInTheEnvironmentAreRefusedAndNeverPrinted) {
  ConfigFolder folder;
  folder.set("tunix.api_key", "canary1");
  folder.set("tunix.project_id", "tunix_sk_canary2");
  folder.assignments.push_back({"output.run_dir", "https://a:canary3@host/x", "--output-dir"});
  folder.environment["TUNIX_BASE_URL"] = "https://a:canary4@host/v1";
  folder.dotenv = "TUNIX_API_KEY=tunix_sk_canary5\nTUNIX_PROJECT_ID=tunix_sk_canary6\n";
  const std::string message = folder.problems(kBase);
  EXPECT_THAT(message, Not(HasSubstr("canary")));
  EXPECT_THAT(message, HasSubstr("--set tunix.api_key=***: tunix.api_key: secrets are not accepted"));
  EXPECT_THAT(message, HasSubstr("--set tunix.project_id=tunix_sk_***: tunix.project_id: the value "
                                 "holds a secret"));
  EXPECT_THAT(message, HasSubstr("--output-dir https://***@host/x: output.run_dir: the value holds"));
  EXPECT_THAT(message, HasSubstr("TUNIX_BASE_URL: tunix.api_base_url: the value holds a secret"));
  EXPECT_THAT(message, HasSubstr("TUNIX_PROJECT_ID in .env: tunix.project_id: the value holds"));
}

// ---- Precedence.

TEST(LoadConfig, FlagsWinOverEnvironmentOverDotenvOverFileOverDefault) {
  ConfigFolder folder;
  const auto run_dir = [&](const std::string& yaml) {
    const LoadedConfig loaded = folder.load(yaml);
    return loaded.config.output.run_dir + " from " + folder.short_names(loaded.origins.at("output.run_dir"));
  };
  const std::string with_file = kBase + "output:\n  run_dir: from_file\n";
  EXPECT_EQ(run_dir(kBase), "artifacts/training_runs from default");
  EXPECT_EQ(run_dir(with_file), "from_file from c.yaml:6:12");
  folder.dotenv = "TRAINING_OUTPUT_DIR=from_dotenv\n";
  EXPECT_EQ(run_dir(with_file), "from_dotenv from TRAINING_OUTPUT_DIR in .env");
  folder.environment["TRAINING_OUTPUT_DIR"] = "from_environment";
  EXPECT_EQ(run_dir(with_file), "from_environment from TRAINING_OUTPUT_DIR");
  folder.set("output.run_dir", "from_set");
  EXPECT_EQ(run_dir(with_file), "from_set from --set");
  folder.assignments.push_back({"output.run_dir", "from_flag", "--output-dir"});
  EXPECT_EQ(run_dir(with_file), "from_flag from --output-dir");
  folder.environment["TRAINING_OUTPUT_DIR"] = "";
  folder.assignments.clear();
  EXPECT_EQ(run_dir(with_file), "from_dotenv from TRAINING_OUTPUT_DIR in .env");
}

TEST(LoadConfig, TheBucketVariableReplacesOnlyTheBucket) {
  ConfigFolder folder;
  folder.environment["TRAINING_OUTPUT_BUCKET"] = "gs://other-bucket/";
  const std::string with_bucket = kBase + "output:\n  run_dir: gs://first/training/runs\n";
  const LoadedConfig loaded = folder.load(with_bucket);
  EXPECT_EQ(loaded.config.output.run_dir, "gs://other-bucket/training/runs");
  EXPECT_EQ(folder.short_names(loaded.origins.at("output.run_dir")), "c.yaml:6:12, bucket from TRAINING_OUTPUT_BUCKET");
  EXPECT_EQ(folder.load(kBase).config.output.run_dir, "artifacts/training_runs");
  folder.environment["TRAINING_OUTPUT_DIR"] = "gs://second";
  EXPECT_EQ(folder.load(with_bucket).config.output.run_dir, "gs://other-bucket");
  folder.assignments.push_back({"output.run_dir", "gs://third/x", "--output-dir"});
  EXPECT_EQ(folder.load(with_bucket).config.output.run_dir, "gs://third/x");
  folder.environment["TRAINING_OUTPUT_BUCKET"] = "gs://other/folder";
  EXPECT_EQ(folder.problems(with_bucket),
            "TRAINING_OUTPUT_BUCKET: output.run_dir: expected a bucket such as gs://my-bucket, found "
            "\"gs://other/folder\"");
}

TEST(LoadConfig, TheServiceVariablesFillTheirKeys) {
  ConfigFolder folder;
  folder.environment["TUNIX_BASE_URL"] = "http://localhost:8080/v1";
  folder.dotenv = "TUNIX_PROJECT_ID=mine\nTUNIX_BASE_URL=https://unused.example\n";
  const LoadedConfig loaded = folder.load(kBase + "tunix:\n  project_id: theirs\n");
  EXPECT_EQ(loaded.config.tunix.api_base_url, "http://localhost:8080/v1");
  EXPECT_EQ(loaded.config.tunix.project_id, "mine");
  EXPECT_EQ(folder.short_names(loaded.origins.at("tunix.project_id")), "TUNIX_PROJECT_ID in .env");
  folder.environment["TUNIX_BASE_URL"] = "localhost";
  EXPECT_EQ(folder.problems(kBase),
            "TUNIX_BASE_URL: tunix.api_base_url: found \"localhost\"; write an address such as "
            "https://api.tunix.ai/v1");
}

TEST(LoadConfig, OnlyTheFileOrTheCommandLineAsksForTheJobService) {
  ConfigFolder folder;
  folder.environment["TUNIX_PROJECT_ID"] = "mine";
  EXPECT_FALSE(folder.load(kBase).config.tunix.present);
  EXPECT_TRUE(folder.load(kBase + "tunix: {}\n").config.tunix.present);
  EXPECT_TRUE(folder
                  .load("model:\n  base_model: google/gemma-2b\n  tunix_job_config:\n"
                        "    region: here\ndataset: {data_path: x}\n")
                  .config.tunix.present);
  folder.set("tunix.experiment_name", "x");
  EXPECT_TRUE(folder.load(kBase).config.tunix.present);
}

TEST(LoadConfig, AnUnknownTunixModeIsAnErrorBesideTheOthers) {
  ConfigFolder folder;
  folder.environment["TUNIX_MODE"] = "production";
  EXPECT_EQ(folder.problems(kBase + "training: {seed: x}\n"),
            "c.yaml:5:18: training.seed: expected a whole number from 0 to 9223372036854775807, found "
            "\"x\"\n"
            "TUNIX_MODE: expected mock or real, found \"production\"; unset it for mock");
}

// ---- The command line.

TEST(LoadConfig, AssignmentsSetEveryKindOfValueAndTheLastWins) {
  ConfigFolder folder;
  folder.set("training.learning_rate", "1e-4");
  folder.set("training.learning_rate", "2e-4");
  folder.set("training.shuffle", "false");
  folder.set("training.lr_scheduler", "cosine");
  folder.set("lora.rank", "4");
  folder.set("lora.target_modules", "[q_proj, \"o_proj\"]");
  folder.set("model.revision", "1234567");
  folder.set("dataset.validation_path", "\"with space: yes.jsonl\"");
  folder.assignments.push_back({"dataset.data_path", "[odd] #name: x.jsonl", "--data"});
  folder.assignments.push_back({"dataset.max_samples", "10", "--max-samples"});
  const LoadedConfig loaded = folder.load(kBase);
  EXPECT_EQ(loaded.config.training.learning_rate, 2e-4);
  EXPECT_FALSE(loaded.config.training.shuffle);
  EXPECT_EQ(loaded.config.training.lr_scheduler, Scheduler::kCosine);
  EXPECT_THAT(loaded.config.lora.target_modules, ElementsAre("q_proj", "o_proj"));
  EXPECT_EQ(loaded.config.model.revision, "1234567");
  EXPECT_EQ(loaded.config.dataset.validation_path, "with space: yes.jsonl");
  EXPECT_EQ(loaded.config.dataset.data_path, "[odd] #name: x.jsonl");
  EXPECT_EQ(loaded.config.dataset.max_samples, 10);
  EXPECT_EQ(loaded.origins.at("training.learning_rate"), "--set");
  EXPECT_EQ(loaded.origins.at("dataset.max_samples"), "--max-samples");
}

TEST(LoadConfig, AssignmentsGoThroughTheSameChecks) {
  ConfigFolder folder;
  folder.set("training.batch_size", "0");
  folder.set("training.batch_size", "");
  folder.set("training.seed", "\"4\"");
  folder.set("training.precision", "fp16");
  folder.set("training.bacth_size", "4");
  folder.set("batch_size", "4");
  folder.set("training", "4");
  folder.set("lora.target_modules", "[a");
  folder.set("output.run_dir", "");
  folder.assignments.push_back({"dataset.max_samples", "-1", "--max-samples"});
  folder.assignments.push_back({"dataset.data_path", "", "--data"});
  folder.assignments.push_back({"dataset.data_path", "caf\xe9.jsonl", "--data"});
  EXPECT_EQ(folder.problems(kBase),
            "--set training.batch_size=0: training.batch_size: expected a whole number from 1 to 65536, "
            "found 0\n"
            "--set training.batch_size=: training.batch_size: has no value; expected a whole number from 1 "
            "to 65536\n"
            "--set training.seed=\"4\": training.seed: expected a whole number from 0 to "
            "9223372036854775807, found the quoted text \"4\"; remove the quotes\n"
            "--set training.precision=fp16: training.precision: fp16 is refused: Gemma's activations "
            "overflow half precision, whose largest value is 65504; use bf16_mixed, bf16 or fp32\n"
            "--set training.bacth_size=4: training.bacth_size: unknown key; did you mean "
            "training.batch_size?\n"
            "--set batch_size=4: batch_size: unknown key; did you mean training.batch_size?\n"
            "--set training=4: training: is a section; name a key in it, such as training.max_steps\n"
            "--set lora.target_modules=[a: lora.target_modules: a key must be a word, not a list or a section; is a "
            "bracket never closed?\n"
            "--set output.run_dir=: output.run_dir: must not be empty\n"
            "--max-samples -1: dataset.max_samples: expected a whole number from 1 to 1000000000000, found "
            "-1\n"
            "--data : dataset.data_path: must not be empty\n"
            "--data caf\\xe9.jsonl: dataset.data_path: must be UTF-8");
}

TEST(LoadConfig, NullOnTheCommandLineTakesAKeyBackToItsDefault) {
  ConfigFolder folder;
  folder.set("training.warmup_steps", "null");
  folder.set("training.warmup_ratio", "0.1");
  folder.set("training.batch_size", "null");
  const LoadedConfig loaded = folder.load(kBase + "training:\n  warmup_steps: 100\n  batch_size: 16\n");
  EXPECT_EQ(loaded.config.training.warmup_steps, std::nullopt);
  EXPECT_EQ(loaded.config.training.warmup_ratio, 0.1);
  EXPECT_EQ(loaded.config.training.batch_size, 4);
  EXPECT_EQ(loaded.origins.at("training.batch_size"), "--set");
}

TEST(LoadConfig, AContradictionAcrossSourcesSaysHowToResolveIt) {
  ConfigFolder folder;
  folder.set("training.warmup_ratio", "0.1");
  EXPECT_EQ(folder.problems(kBase + "training:\n  warmup_steps: 100\n"),
            "--set training.warmup_ratio=0.1: training.warmup_ratio: contradicts "
            "training.warmup_steps (c.yaml:6:17); keep one of them, for example with --set "
            "training.warmup_steps=null");
}

TEST(LoadConfig, SwitchingLoraOffOnTheCommandLineIsAWarning) {
  ConfigFolder folder;
  folder.set("lora.rank", "0");
  const LoadedConfig loaded = folder.load(kBase + "lora:\n  rank: 8\n  alpha: 16\n");
  EXPECT_EQ(loaded.config.lora.rank, 0);
  ASSERT_EQ(loaded.warnings.size(), 1u);
  EXPECT_EQ(folder.short_names(loaded.warnings[0]),
            "c.yaml:7:10: lora.alpha: has no effect, because --set lora.rank=0 switches LoRA off");
}

TEST(LoadConfig, AProblemInTheFileIsReportedEvenWhenAFlagOverridesIt) {
  ConfigFolder folder;
  folder.set("training.batch_size", "4");
  EXPECT_EQ(folder.problems(kBase + "training: {batch_size: none}\n"),
            "c.yaml:5:24: training.batch_size: expected a whole number from 1 to 65536, found "
            "\"none\"");
}

TEST(LoadConfig, WarningsOfDotenvArePassedOn) {
  ConfigFolder folder;
  folder.dotenv = "nonsense\n";
  const LoadedConfig loaded = folder.load(kBase);
  ASSERT_EQ(loaded.warnings.size(), 1u);
  EXPECT_EQ(folder.short_names(loaded.warnings[0]), ".env:1: not of the form NAME=VALUE; the line is ignored");
}

TEST(LoadConfig, LoadingTakesLessThanFiveMilliseconds) {
#ifdef __OPTIMIZE__
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  const auto limit = std::chrono::milliseconds(100);
#else
  const auto limit = std::chrono::milliseconds(5);
#endif
#else
  const auto limit = std::chrono::milliseconds(50);
#endif
  const std::string file = std::string(GEMMA_SFT_SOURCE_DIR) + "/configs/sft_production.yaml";
  const ConfigFolder folder;
  std::chrono::steady_clock::duration best = std::chrono::hours(1);
  for (int i = 0; i < 50; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    folder.load_file(file);
    best = std::min(best, std::chrono::steady_clock::now() - begin);
  }
  EXPECT_LT(best, limit);
}

}  // namespace
}  // namespace gemma_sft
