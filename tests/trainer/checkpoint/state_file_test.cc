#include "trainer/checkpoint/state_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "configs/error.h"
#include "configs/load_config.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

class StateFileTest : public ::testing::Test {
 protected:
  StateFileTest() {
    state_ = {.step = 17,
              .cursor = {.epoch = 2, .step_in_epoch = 5, .position = 11},
              .epoch = 2.0 + 1.0 / 3.0,
              .last_loss = 0.1 + 0.2,
              .last_eval_loss = std::nextafter(1.0, 2.0),
              .best = BestEvaluation{12, std::numeric_limits<double>::denorm_min()},
              .evaluated_step = 15,
              .evaluations_without_improvement = 3,
              .skipped_in_a_row = 1};
    origin_.config.model.base_model = "tiny";
    origin_.config.dataset.data_path = "data.jsonl";
    origin_.config.training.learning_rate = 1.0 / 3.0;
    origin_.config.lora.rank = 4;
    origin_.precision = Precision::kBf16Mixed;
    origin_.total_steps = 40;
    origin_.data_sha256 = "d";
    origin_.tokenizer_sha256 = "t";
    origin_.model_sha256 = "m";
    origin_.model_folder = "/models/tiny";
    origin_.device = "cpu";
    origin_.threads = 3;
    origin_.versions = {{"gemma-sft", "0.1.0"}};
  }
  SavedState round_trip() {
    files_.write("checkpoint-17/state.json", state_json(state_, origin_));
    files_.write("checkpoint-17/config.yaml", to_yaml(origin_.config));
    return read_saved_state(files_ / "checkpoint-17");
  }

  TempDir files_;
  TrainState state_;
  RunOrigin origin_;
};

TEST_F(StateFileTest, every_value_reads_back_exactly) {
  const SavedState saved = round_trip();
  EXPECT_EQ(saved.state.step, 17);
  EXPECT_EQ(saved.state.cursor, state_.cursor);
  EXPECT_EQ(saved.state.epoch, state_.epoch);
  EXPECT_EQ(saved.state.last_loss, state_.last_loss);
  EXPECT_EQ(saved.state.last_eval_loss, state_.last_eval_loss);
  EXPECT_EQ(saved.state.best->step, 12);
  EXPECT_EQ(saved.state.best->loss, std::numeric_limits<double>::denorm_min());
  EXPECT_EQ(saved.state.evaluated_step, 15);
  EXPECT_EQ(saved.state.evaluations_without_improvement, 3);
  EXPECT_EQ(saved.state.skipped_in_a_row, 1);
  EXPECT_EQ(saved.origin.config.training.learning_rate, 1.0 / 3.0);
  EXPECT_EQ(saved.origin.config.lora.rank, 4);
  EXPECT_EQ(saved.origin.config.model.base_model, "tiny");
  EXPECT_EQ(saved.origin.precision, Precision::kBf16Mixed);
  EXPECT_EQ(saved.origin.total_steps, 40);
  EXPECT_EQ(saved.origin.threads, 3);
  EXPECT_EQ(saved.origin.versions, origin_.versions);
  EXPECT_EQ(state_json(saved.state, saved.origin), state_json(state_, origin_));
}

TEST_F(StateFileTest, a_base_model_that_was_named_by_a_relative_path_is_no_obstacle_elsewhere) {
  origin_.config.model.base_model = "./models/that/are/not/here";
  EXPECT_EQ(round_trip().origin.config.model.base_model, "./models/that/are/not/here");
}

TEST_F(StateFileTest, a_folder_whose_name_looks_like_a_token_is_no_obstacle) {
  origin_.model_folder = "/tmp/hf_abcdefghijklmnopqrstuvwx/base";
  EXPECT_EQ(round_trip().origin.model_folder, origin_.model_folder);
}

TEST_F(StateFileTest, absent_values_stay_absent) {
  state_.best.reset();
  state_.last_loss.reset();
  state_.last_eval_loss.reset();
  const SavedState saved = round_trip();
  EXPECT_FALSE(saved.state.best);
  EXPECT_FALSE(saved.state.last_loss);
  EXPECT_FALSE(saved.state.last_eval_loss);
}

TEST_F(StateFileTest, a_loss_that_is_not_a_number_is_kept_as_none) {
  state_.last_loss = std::nan("");
  EXPECT_FALSE(round_trip().state.last_loss);
}

TEST_F(StateFileTest, numbers_that_no_run_can_have_are_refused_by_name) {
  round_trip();
  const TrainState good = state_;
  const auto refusal = [&](const TrainState& state) {
    files_.write("checkpoint-17/state.json", state_json(state, origin_));
    try {
      read_saved_state(files_ / "checkpoint-17");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCheckpoint);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const std::pair<std::function<void(TrainState&)>, const char*> changes[] = {
      {[](TrainState& state) { state.step = 18; }, "state.json: says step 18, the folder's name does not"},
      {[](TrainState& state) { state.cursor.epoch = INT64_MAX; }, "epoch: expected at most 17"},
      {[](TrainState& state) { state.cursor.step_in_epoch = 18; }, "step_in_epoch: expected at most 17"},
      {[](TrainState& state) { state.best->step = 18; }, "best.step: expected at most 17"},
      {[](TrainState& state) { state.evaluated_step = 18; }, "evaluated_step: expected at most 17"},
      {[](TrainState& state) { state.skipped_in_a_row = 18; }, "skipped_in_a_row: expected at most 17"},
      {[](TrainState& state) { state.evaluations_without_improvement = 18; },
       "evaluations_without_improvement: expected at most 17"}};
  for (const auto& [change, message] : changes) {
    TrainState state = good;
    change(state);
    EXPECT_NE(refusal(state).find(message), std::string::npos) << refusal(state);
    EXPECT_NE(refusal(state).find("move it away"), std::string::npos) << refusal(state);
  }
  EXPECT_EQ(refusal(good), "no error");
}

TEST_F(StateFileTest, a_file_without_a_field_is_an_error_that_names_the_checkpoint) {
  round_trip();
  files_.write("checkpoint-17/state.json", "{\"step\": 17}");
  try {
    read_saved_state(files_ / "checkpoint-17");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCheckpoint);
    EXPECT_NE(std::string(error.what()).find("checkpoint-17"), std::string::npos);
  }
}

TEST_F(StateFileTest, a_precision_of_no_run_is_shown_on_one_line_and_in_part) {
  round_trip();
  std::string text = state_json(state_, origin_);
  const std::string good = "\"bf16_mixed\"";
  ASSERT_NE(text.find(good), std::string::npos) << text;
  text.replace(text.find(good), good.size(), R"("a\u001b\nb)" + std::string(900'000, 'x') + '"');
  files_.write("checkpoint-17/state.json", text);
  try {
    read_saved_state(files_ / "checkpoint-17");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("precision: a\\u001b\\nbxxx"), std::string::npos);
    EXPECT_LT(std::string(error.what()).size(), 1000u);
  }
}

}  // namespace
}  // namespace gemma_sft
