// The three smoke tests of the training pipeline's guide, under their own names. CMakeLists.txt makes a ctest entry of
// each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/process.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;

// As the guide runs it: from the folder above configs/, or by the link with the script's name.
TEST(Smoke, test_training_script_dry_run_exits_zero) {
  for (const char* name : {"gemma-sft", "train_sft_tunix"}) {
    std::vector<std::string> words = {program(name), "--config", "configs/sft_tiny.yaml", "--dry-run"};
    if (name == std::string("gemma-sft")) words.insert(words.begin() + 1, "train");
    const ProcessResult result = run_process(words, {.folder = GEMMA_SFT_SOURCE_DIR});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, testing::MatchesRegex("✅ Config loaded: configs/sft_tiny\\.yaml\n"
                                                  "✅ Manifest validated: backend/datasets/test-v1/manifest\\.json\n"
                                                  "✅ Output dir: artifacts/training_runs/run_[0-9a-f]+\n"
                                                  "✅ Dry-run mode: Exiting without training\n"));
  }
}

TEST(Smoke, test_training_script_validates_config) {
  const TempDir dir;
  dir.write("bad.yaml",
            "model: {base_model: google/gemma-2b-it}\ndataset: {data_path: rows.jsonl}\n"
            "training: {batch_size: many, learnin_rate: 1e-4}\n");
  const ProcessResult result = gemma_sft_run({"train", "--config", "bad.yaml", "--dry-run"}, {.folder = dir.path()});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("bad.yaml:3:24"));
  EXPECT_THAT(result.err, HasSubstr("training.batch_size"));
  EXPECT_THAT(result.err, HasSubstr("training.learning_rate"));  // the nearest known key, in the same report
}

TEST(Smoke, test_training_script_missing_config_fails) {
  const ProcessResult absent = gemma_sft_run({"train", "--config", "nowhere.yaml", "--dry-run"});
  EXPECT_EQ(absent.exit_code, 2);
  EXPECT_THAT(absent.err, HasSubstr("not found"));
  const ProcessResult none = gemma_sft_run({"train"});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_THAT(none.err, HasSubstr("required"));
}

}  // namespace
}  // namespace gemma_sft
