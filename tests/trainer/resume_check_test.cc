#include "trainer/resume_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"

namespace gemma_sft {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

RunOrigin origin() {
  RunOrigin made_from;
  made_from.config.model.base_model = "tiny";
  made_from.config.dataset.data_path = "train.jsonl";
  made_from.total_steps = 10;
  made_from.data_sha256 = "d";
  made_from.tokenizer_sha256 = "t";
  made_from.model_sha256 = "m";
  made_from.device = "cpu";
  made_from.threads = 2;
  made_from.versions = {{"gemma-sft", "1"}};
  return made_from;
}

std::string refusal(const RunOrigin& now, const std::set<AllowedChange>& allowed = {}, const RunPlace& place = {}) {
  try {
    require_same_origin(origin(), now, allowed, "run/checkpoint-4", place);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCheckpoint);
    return error.what();
  }
  return "";
}

TEST(ResumeCheckTest, the_same_origin_continues_without_a_word) {
  EXPECT_THAT(require_same_origin(origin(), origin(), {}, "c", {}), IsEmpty());
}

TEST(ResumeCheckTest, a_changed_data_file_is_refused_by_name_with_both_digests) {
  RunOrigin now = origin();
  now.data_sha256 = "e";
  EXPECT_THAT(refusal(now), AllOf(HasSubstr("run/checkpoint-4"), HasSubstr("the data file: SHA-256 was d and is e"),
                                  HasSubstr("--allow-changed data")));
  EXPECT_EQ(refusal(now, {AllowedChange::kData}), "");
  EXPECT_NE(refusal(now, {AllowedChange::kConfig, AllowedChange::kTokenizer}), "");
}

TEST(ResumeCheckTest, a_changed_tokenizer_is_refused_by_name) {
  RunOrigin now = origin();
  now.tokenizer_sha256 = "u";
  EXPECT_THAT(refusal(now), AllOf(HasSubstr("the tokenizer"), HasSubstr("--allow-changed tokenizer")));
  EXPECT_EQ(refusal(now, {AllowedChange::kTokenizer}), "");
}

TEST(ResumeCheckTest, changed_keys_are_refused_by_name_with_both_values) {
  RunOrigin now = origin();
  now.config.training.learning_rate = 1e-4;
  now.config.training.seed = 43;
  EXPECT_THAT(refusal(now), AllOf(HasSubstr("training.learning_rate was 2e-05 and is 1e-04"),
                                  HasSubstr("training.seed was 42 and is 43"), HasSubstr("--allow-changed config")));
  EXPECT_EQ(refusal(now, {AllowedChange::kConfig}), "");
}

TEST(ResumeCheckTest, starting_anew_is_said_as_the_place_of_the_run_allows) {
  RunOrigin now = origin();
  now.data_sha256 = "e";
  EXPECT_THAT(refusal(now, {}, {.id = "r", .folder = "runs/run_r"}), HasSubstr("start anew with --resume never"));
  const std::string exact = refusal(now, {}, {.id = "r", .folder = "out", .is_exact = true});
  EXPECT_THAT(exact, AllOf(HasSubstr("start anew with another --output"), Not(HasSubstr("--resume never"))));
}

TEST(ResumeCheckTest, another_precision_or_base_model_is_refused) {
  RunOrigin now = origin();
  now.precision = Precision::kBf16;
  EXPECT_THAT(refusal(now), HasSubstr("training.precision was fp32 and is bf16"));
  now = origin();
  now.model_sha256 = "n";
  EXPECT_THAT(refusal(now), HasSubstr("the base model"));
}

TEST(ResumeCheckTest, a_shorter_run_is_refused_and_a_longer_one_is_not) {
  RunOrigin now = origin();
  now.total_steps = 9;
  now.config.training.num_epochs = 1;
  EXPECT_THAT(refusal(now), HasSubstr("the run had 10 steps and has 9"));
  now.total_steps = 11;
  now.config.training.num_epochs = 5;
  EXPECT_EQ(refusal(now), "");
  now = origin();
  now.config.training.max_steps = 20;
  now.total_steps = 20;
  EXPECT_EQ(refusal(now), "");
}

TEST(ResumeCheckTest, output_evaluation_and_where_files_are_never_refuse) {
  RunOrigin now = origin();
  now.config.output.run_dir = "elsewhere";
  now.config.output.keep_checkpoints = 7;
  now.config.evaluation.every = 3;
  now.config.evaluation.keep_best = true;
  now.config.model.base_model = "/moved/tiny";
  now.config.dataset.data_path = "/moved/train.jsonl";
  EXPECT_EQ(refusal(now), "");
}

TEST(ResumeCheckTest, what_only_ends_bit_exactness_is_a_warning) {
  RunOrigin now = origin();
  now.threads = 4;
  now.device = "cuda:0 (X)";
  EXPECT_THAT(require_same_origin(origin(), now, {}, "c", {}),
              ElementsAre(HasSubstr("the device was cpu"), HasSubstr("the number of threads was 2 and is 4")));
}

TEST(ResumeCheckTest, a_deterministic_run_refuses_what_ends_bit_exactness_unless_told_otherwise) {
  RunOrigin before = origin();
  before.config.training.deterministic = true;
  RunOrigin now = before;
  EXPECT_THAT(require_same_origin(before, now, {}, "c", {}), IsEmpty());
  now.threads = 4;
  now.versions["gemma-sft"] = "2";
  const auto refused = [&]() -> std::string {
    try {
      require_same_origin(before, now, {}, "run/checkpoint-4", {});
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCheckpoint);
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(refused(), AllOf(HasSubstr("the number of threads was 2 and is 4"), HasSubstr("gemma-sft was 1 and is 2"),
                               HasSubstr("training.deterministic: true"), HasSubstr("--allow-changed config")));
  EXPECT_THAT(require_same_origin(before, now, {AllowedChange::kConfig}, "c", {}),
              ElementsAre(HasSubstr("the number of threads was 2 and is 4"), HasSubstr("gemma-sft was 1 and is 2")));
}

TEST(ResumeCheckTest, what_a_checkpoint_says_forges_no_line_and_makes_no_endless_message) {
  RunOrigin before = origin();
  before.data_sha256 = "d\x1b\n" + std::string(900'000, 'd');
  before.device = "c\x1b\nd";
  try {
    require_same_origin(before, origin(), {}, "run/checkpoint-4", {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("the data file: SHA-256 was d\\u001b\\nddd"));
    EXPECT_LT(std::string(error.what()).size(), 1000u);
  }
  EXPECT_THAT(require_same_origin(before, origin(), {AllowedChange::kData}, "c", {}),
              ::testing::Contains(HasSubstr("the device was c\\u001b\\nd and is cpu")));
}

}  // namespace
}  // namespace gemma_sft
