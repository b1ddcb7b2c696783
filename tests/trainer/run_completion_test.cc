#include "trainer/run_completion.h"

#include <gtest/gtest.h>

#include "data/files/sha256.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

class RunCompletionTest : public ::testing::Test {
 protected:
  RunCompletionTest() {
    files_.write("final_model/config.json", "{}");
    files_.write("final_model/model.safetensors", "weights");
    completion_ = {.run_id = "r",
                   .config_sha256 = config_sha256(config_),
                   .step = 12,
                   .model_step = 8,
                   .early_stopped = true,
                   .final_loss = 0.1,
                   .final_eval_loss = std::nullopt,
                   .final_model = {{"config.json", sha256_hex("{}")}, {"model.safetensors", sha256_hex("weights")}}};
    write_completion(files_.path(), completion_, real_file_system());
  }

  TempDir files_;
  RunConfig config_;
  RunCompletion completion_;
};

TEST_F(RunCompletionTest, reads_back_what_was_written) {
  const auto found = find_completion(files_.path(), "r", config_);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->step, 12);
  EXPECT_EQ(found->model_step, 8);
  EXPECT_TRUE(found->early_stopped);
  EXPECT_EQ(found->final_loss, 0.1);
  EXPECT_FALSE(found->final_eval_loss);
}

TEST_F(RunCompletionTest, a_run_that_is_to_train_longer_is_not_complete) {
  config_.training.num_epochs = 4;
  EXPECT_FALSE(find_completion(files_.path(), "r", config_));
}

TEST_F(RunCompletionTest, where_the_results_go_does_not_matter) {
  config_.output.run_dir = "elsewhere";
  EXPECT_TRUE(find_completion(files_.path(), "r", config_));
}

TEST_F(RunCompletionTest, another_run_s_completion_does_not_count) {
  EXPECT_FALSE(find_completion(files_.path(), "s", config_));
}

TEST_F(RunCompletionTest, a_changed_or_missing_file_of_the_final_model_makes_it_incomplete) {
  files_.write("final_model/config.json", "[]");
  EXPECT_FALSE(find_completion(files_.path(), "r", config_));
  std::filesystem::remove(files_ / "final_model/config.json");
  EXPECT_FALSE(find_completion(files_.path(), "r", config_));
}

TEST_F(RunCompletionTest, what_names_no_model_in_its_folder_is_none) {
  const std::map<std::string, std::string> weights = completion_.final_model;
  const std::string outside = sha256_hex("outside");
  files_.write("outside", "outside");
  for (const std::map<std::string, std::string>& named :
       {std::map<std::string, std::string>{},
        {{"config.json", weights.at("config.json")}},
        {{"model.safetensors", weights.at("model.safetensors")}, {"../outside", outside}}}) {
    completion_.final_model = named;
    write_completion(files_.path(), completion_, real_file_system());
    EXPECT_FALSE(find_completion(files_.path(), "r", config_));
  }
}

TEST_F(RunCompletionTest, a_torn_file_counts_as_none) {
  files_.write("completed.json", "{\"run_id\": \"r\"");
  EXPECT_FALSE(find_completion(files_.path(), "r", config_));
}

}  // namespace
}  // namespace gemma_sft
