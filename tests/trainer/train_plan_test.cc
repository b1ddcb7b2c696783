#include "trainer/train_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"
#include "tests/trainer/send_signal.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

DatasetIndex index_of(int64_t rows, int64_t validation_rows = 0) {
  DatasetIndex index;
  for (int64_t i = 0; i < rows; ++i) {
    index.train.push_back({.byte = 0,
                           .line = static_cast<uint32_t>(i + 1),
                           .tokens = static_cast<uint32_t>(10 + i % 7),
                           .target_tokens = 5});
  }
  index.validation.resize(static_cast<size_t>(validation_rows));
  return index;
}

RunConfig config_of(int64_t batch_size, int64_t accumulation, double epochs) {
  RunConfig config;
  config.training.batch_size = batch_size;
  config.training.gradient_accumulation_steps = accumulation;
  config.training.num_epochs = epochs;
  return config;
}

TEST(TrainPlanTest, the_rest_of_an_epoch_is_a_step_of_its_own) {
  // 10 rows, 4 a batch: 3 batches; 2 batches a step: 2 steps.
  const TrainPlan plan = make_plan(config_of(4, 2, 3), index_of(10), 0);
  EXPECT_EQ(plan.steps_per_epoch, 2);
  EXPECT_EQ(plan.total_steps, 6);
}

TEST(TrainPlanTest, the_guide_s_example_of_ten_traces_has_nine_steps) {
  EXPECT_EQ(make_plan(config_of(4, 1, 3), index_of(10), 0).total_steps, 9);
}

TEST(TrainPlanTest, a_fraction_of_an_epoch_is_rounded_up_to_whole_steps) {
  EXPECT_EQ(make_plan(config_of(1, 1, 0.1), index_of(30), 0).total_steps, 3);   // 3.0000000000000004
  EXPECT_EQ(make_plan(config_of(1, 1, 0.11), index_of(30), 0).total_steps, 4);  // 3.3
  EXPECT_EQ(make_plan(config_of(1, 1, 1.5), index_of(3), 0).total_steps, 5);    // 4.5
}

TEST(TrainPlanTest, max_steps_wins_over_num_epochs) {
  RunConfig config = config_of(4, 1, 3);
  config.training.max_steps = 100;
  EXPECT_EQ(make_plan(config, index_of(10), 0).total_steps, 100);
}

TEST(TrainPlanTest, token_budgets_count_every_epoch_for_itself) {
  RunConfig config = config_of(1, 1, 2.5);
  config.training.batch_tokens = 40;
  const DatasetIndex index = index_of(50);
  const TrainPlan plan = make_plan(config, index, 0);
  const int64_t first = steps_in_epoch(index, plan.batches, 0);
  const int64_t second = steps_in_epoch(index, plan.batches, 1);
  const int64_t third = steps_in_epoch(index, plan.batches, 2);
  EXPECT_EQ(plan.total_steps, first + second + (third + 1) / 2);
  EXPECT_EQ(plan.steps_per_epoch, first);
}

TEST(TrainPlanTest, token_budgets_evaluate_at_each_epoch_s_own_end_and_at_the_end_of_the_run) {
  RunConfig config = config_of(1, 1, 2.5);
  config.training.batch_tokens = 40;
  const TrainPlan plan = make_plan(config, index_of(50, 3), 0);
  EXPECT_TRUE(plan.evaluates_after(17, {.epoch = 1, .step_in_epoch = 0, .position = 0}));
  EXPECT_FALSE(plan.evaluates_after(17, {.epoch = 0, .step_in_epoch = 17, .position = 49}));
  EXPECT_FALSE(plan.evaluates_after(18, {.epoch = 1, .step_in_epoch = 1, .position = 3}));
  EXPECT_TRUE(plan.evaluates_after(plan.total_steps, {.epoch = 2, .step_in_epoch = 9, .position = 25}));
  config.evaluation.every = 7;
  EXPECT_FALSE(make_plan(config, index_of(50, 3), 0).evaluates_after(17, {.epoch = 1}));
  config.evaluation.every.reset();
  EXPECT_FALSE(make_plan(config, index_of(50), 0).evaluates_after(17, {.epoch = 1})) << "nothing to evaluate on";
}

// A billion steps of a token budget are sixty million epochs here, whose steps need not be counted.
TEST(TrainPlanTest, max_steps_of_a_token_budget_are_known_at_once) {
  RunConfig config = config_of(1, 1, 1);
  config.training.batch_tokens = 40;
  config.training.max_steps = 1'000'000'000;
  EXPECT_EQ(make_plan(config, index_of(50, 3), 0).total_steps, 1'000'000'000);
}

TEST(TrainPlanTest, a_signal_ends_the_counting_of_many_epochs) {
  RunConfig config = config_of(1, 1, 1e6);
  config.training.batch_tokens = 40;
  install_stop_signals();
  send_stop_signal(SIGTERM);
  EXPECT_THROW(make_plan(config, index_of(50), 0), StopRequested);
  install_stop_signals();
}

TEST(TrainPlanTest, warm_up_ratio_is_rounded_up) {
  RunConfig config = config_of(16, 1, 5);  // 1000 rows: 315 steps
  config.training.warmup_ratio = 0.1;
  const TrainPlan plan = make_plan(config, index_of(1000), 0);
  EXPECT_EQ(plan.total_steps, 315);
  EXPECT_EQ(plan.warmup_steps, 32);
  EXPECT_EQ(plan.schedule.warmup_steps, 32);
}

TEST(TrainPlanTest, evaluates_once_an_epoch_and_at_the_end_where_there_is_validation_data) {
  RunConfig config = config_of(2, 1, 2.5);  // 5 steps an epoch, 13 in all
  const TrainPlan plan = make_plan(config, index_of(10, 1), 0);
  std::vector<int64_t> steps;
  for (int64_t step = 1; step <= plan.total_steps; ++step) {
    if (plan.evaluates_after(step, {})) steps.push_back(step);
  }
  EXPECT_THAT(steps, ElementsAre(5, 10, 13));
  EXPECT_FALSE(make_plan(config, index_of(10), 0).evaluates_after(5, {}));
}

TEST(TrainPlanTest, evaluates_every_so_many_steps_when_told) {
  RunConfig config = config_of(2, 1, 2);
  config.evaluation.every = 3;
  const TrainPlan plan = make_plan(config, index_of(10, 1), 0);
  EXPECT_TRUE(plan.evaluates_after(3, {}));
  EXPECT_FALSE(plan.evaluates_after(5, {}));
  EXPECT_TRUE(plan.evaluates_after(10, {}));
}

TEST(TrainPlanTest, the_end_of_a_run_is_always_saved) {
  RunConfig config = config_of(2, 1, 2);
  config.output.checkpoint_every = 500;
  EXPECT_TRUE(make_plan(config, index_of(10), 0).saves_after(10));
  config.output.checkpoint_every = 0;
  const TrainPlan plan = make_plan(config, index_of(10), 0);
  EXPECT_TRUE(plan.saves_after(10));
  EXPECT_FALSE(plan.saves_after(5));
}

TEST(TrainPlanTest, no_step_at_all_is_an_error) { EXPECT_THROW(make_plan(config_of(2, 1, 0), index_of(10), 0), Error); }

TEST(TrainPlanTest, warns_of_a_warm_up_longer_than_the_run_and_of_a_checkpoint_that_never_fires) {
  RunConfig config;
  config.training.warmup_steps = 100;
  config.output.checkpoint_every = 1000;
  EXPECT_THAT(plan_warnings(config, 9), ElementsAre(HasSubstr("training.warmup_steps: the warm-up takes 100 steps"),
                                                    HasSubstr("output.checkpoint_every: 1000")));
  config.training.warmup_steps = 3;
  config.output.checkpoint_every = 3;
  EXPECT_THAT(plan_warnings(config, 9), IsEmpty());
}

TEST(TrainPlanTest, steps_are_known_from_the_number_of_rows_alone) {
  RunConfig config = config_of(4, 1, 3);
  EXPECT_EQ(count_steps(config.training, 10), 9);
  EXPECT_EQ(count_steps(config.training, std::nullopt), std::nullopt);
  config.training.batch_tokens = 100;
  EXPECT_EQ(count_steps(config.training, 10), std::nullopt);
  config.training.max_steps = 5;
  EXPECT_EQ(count_steps(config.training, std::nullopt), 5);
}

}  // namespace
}  // namespace gemma_sft
