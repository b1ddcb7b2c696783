#include "trainer/evaluator.h"

#include <ATen/Context.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "configs/error.h"
#include "tests/trainer/send_signal.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

class EvaluatorTest : public ::testing::Test {
 protected:
  EvaluatorTest() : tokenizer_(Tokenizer::load(tiny_.base_model())), model_(load_tiny_model(tiny_)) {
    index_ = std::make_shared<DatasetIndex>(index_dataset(tiny_.data().string(), *tokenizer_, {}));
    install_stop_signals();
  }
  EvaluationLoss loss(const BatchOptions& options) {
    return *Evaluator(model_, index_, index_->train, tokenizer_, options).run(1);
  }

  TinyRun tiny_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const DatasetIndex> index_;
  Gemma model_;
};

TEST_F(EvaluatorTest, is_the_same_however_rows_are_put_into_batches) {
  const EvaluationLoss one = loss({.batch_size = 1});
  for (const BatchOptions& options :
       {BatchOptions{.batch_size = 3}, BatchOptions{.batch_size = 100}, BatchOptions{.batch_tokens = 70},
        BatchOptions{.batch_size = 4, .pack = {.packing = false}}}) {
    const EvaluationLoss other = loss(options);
    EXPECT_EQ(other.tokens, one.tokens);
    EXPECT_NEAR(other.mean(), one.mean(), 1e-6);
  }
}

TEST_F(EvaluatorTest, weighs_tokens_and_not_rows) {
  int64_t targets = 0;
  for (const IndexedRow& row : index_->train) targets += row.target_tokens;
  EXPECT_EQ(loss({}).tokens, targets);
}

TEST_F(EvaluatorTest, leaves_no_gradient_and_may_be_run_again) {
  Evaluator evaluator(model_, index_, index_->train, tokenizer_, {});
  const double first = evaluator.run(1)->sum;
  EXPECT_EQ(evaluator.run(1)->sum, first);
  for (const Parameter& parameter : model_.trainable_parameters()) EXPECT_FALSE(parameter.tensor.grad().defined());
}

TEST_F(EvaluatorTest, dropout_goes_on_after_it_even_when_it_failed) {
  model_.add_lora({.rank = 2, .dropout = 0.5, .target_modules = {"q_proj"}}, 1);
  for (const Parameter& parameter : model_.lora_parameters()) parameter.tensor.detach().fill_(0.1);
  model_.set_training(true);
  at::manual_seed(1);
  const std::unique_ptr<PackedBatch> batch = EvaluationStream(index_, index_->train, tokenizer_, {}).next();
  const auto drops = [&] { return loss_of(model_, *batch) != loss_of(model_, *batch); };
  ASSERT_TRUE(drops());
  Evaluator evaluator(model_, index_, index_->train, tokenizer_, {});
  tiny_.files().write("data.jsonl", "");
  EXPECT_THROW(evaluator.run(1), Error);
  EXPECT_TRUE(drops());
}

TEST_F(EvaluatorTest, a_signal_ends_it_without_a_result) {
  Evaluator evaluator(model_, index_, index_->train, tokenizer_, {});
  send_stop_signal(SIGINT);
  EXPECT_FALSE(evaluator.run(1));
  install_stop_signals();
  EXPECT_TRUE(evaluator.run(1));
}

}  // namespace
}  // namespace gemma_sft
