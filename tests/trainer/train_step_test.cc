#include "trainer/train_step.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "configs/error.h"
#include "data/batches/batch_stream.h"
#include "tests/model/counting_allocator.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/run_tensors.h"

namespace gemma_sft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class TrainStepTest : public ::testing::Test {
 protected:
  TrainStepTest() : tokenizer_(Tokenizer::load(tiny_.base_model())) {
    index_ = std::make_shared<DatasetIndex>(
        index_dataset(tiny_.files().write("rows.jsonl", make_rows(19)).string(), *tokenizer_, {}));
  }

  struct Trained {
    Gemma model;
    std::vector<double> losses, norms;
    std::vector<std::vector<std::string>> row_ids;  // of each step
  };
  Trained train(int64_t batch_size, int64_t accumulation, bool packing, const std::vector<std::string>& more = {},
                int steps = 5) {
    const RunConfig config = tiny_.request(more).loaded.config;
    Trained result{load_tiny_model(tiny_), {}, {}, {}};
    if (config.lora.rank > 0) result.model.add_lora({.rank = config.lora.rank, .target_modules = {"q_proj"}}, 1);
    Optimizer optimizer(result.model.trainable_parameters(), optimizer_options(config.training));
    TrainStep step(result.model, optimizer, {.max_grad_norm = 1.0, .on_nonfinite = config.training.on_nonfinite});
    BatchStream stream(index_, tokenizer_,
                       {.batch_size = batch_size, .accumulation = accumulation, .pack = {.packing = packing}});
    for (int i = 0; i < steps; ++i) {
      const StepBatches batches = stream.next();
      result.row_ids.emplace_back();
      for (const PackedBatch& batch : batches.micro_batches) {
        step.accumulate(batch, i + 1);
        result.row_ids.back().insert(result.row_ids.back().end(), batch.row_ids.begin(), batch.row_ids.end());
      }
      const StepStats stats = step.apply(1e-3, batches.micro_batches, i + 1);
      expect_all_counted(stats, batches);
      result.losses.push_back(stats.loss);
      result.norms.push_back(stats.grad_norm);
    }
    return result;
  }
  static void expect_all_counted(const StepStats& stats, const StepBatches& batches) {
    int64_t tokens = 0;
    int64_t target_tokens = 0;
    for (const PackedBatch& batch : batches.micro_batches) {
      tokens += batch.real_tokens;
      target_tokens += batch.target_tokens;
    }
    EXPECT_EQ(stats.tokens, tokens);
    EXPECT_EQ(stats.target_tokens, target_tokens);
  }
  void expect_same(Trained& a, Trained& b) {
    EXPECT_EQ(a.row_ids, b.row_ids);
    for (size_t i = 0; i < a.losses.size(); ++i) {
      EXPECT_NEAR(a.losses[i], b.losses[i], 1e-6) << "step " << i + 1;
      EXPECT_NEAR(a.norms[i], b.norms[i], 1e-5) << "step " << i + 1;
    }
    const auto one = a.model.trainable_parameters(), two = b.model.trainable_parameters();
    for (size_t i = 0; i < one.size(); ++i) {
      EXPECT_LE((one[i].tensor - two[i].tensor).abs().max().item<double>(), 1e-5) << one[i].name;
    }
  }

  TinyRun tiny_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const DatasetIndex> index_;
};

TEST_F(TrainStepTest, eight_at_once_equal_four_twice_and_one_eight_times) {
  Trained whole = train(8, 1, true), halves = train(4, 2, true), singles = train(1, 8, true);
  expect_same(whole, halves);
  expect_same(whole, singles);
}

TEST_F(TrainStepTest, packed_equals_padded) {
  Trained packed = train(8, 1, true), padded = train(8, 1, false), some = train(2, 4, false);
  expect_same(packed, padded);
  expect_same(packed, some);
}

TEST_F(TrainStepTest, lora_trains_the_adapter_alone) {
  const Gemma before = load_tiny_model(tiny_);
  Trained adapter = train(8, 1, true, {"lora.rank=2"});
  const auto base = adapter.model.base_parameters(), untouched = before.base_parameters();
  for (size_t i = 0; i < base.size(); ++i) EXPECT_TRUE(base[i].tensor.equal(untouched[i].tensor)) << base[i].name;
  EXPECT_LT(adapter.losses[4], adapter.losses[0]);
}

TEST_F(TrainStepTest, a_frozen_base_costs_no_memory_for_gradients_and_moments) {
  Gemma model = load_tiny_model(tiny_);
  const auto bytes_of = [](const std::vector<Parameter>& parameters) {
    int64_t bytes = 0;
    for (const Parameter& parameter : parameters) bytes += static_cast<int64_t>(parameter.tensor.nbytes());
    return bytes;
  };
  CountingAllocator memory;
  const int64_t before = memory.held();
  model.add_lora({.rank = 2, .target_modules = {"q_proj", "down_proj"}}, 1);
  Optimizer optimizer(model.trainable_parameters(), {});
  TrainStep step(model, optimizer, {});
  BatchStream stream(index_, tokenizer_, {.batch_size = 2});
  const StepBatches batches = stream.next();
  step.accumulate(batches.micro_batches.front(), 1);
  const int64_t with_gradients = memory.held() - before;
  step.apply(1e-3, batches.micro_batches, 1);
  const int64_t without = memory.held() - before;
  const int64_t adapter = bytes_of(model.trainable_parameters()), base = bytes_of(model.base_parameters());
  constexpr int64_t kScalars = 4096;  // counts of updates, losses
  EXPECT_GE(with_gradients, 4 * adapter);
  EXPECT_LE(with_gradients, 4 * adapter + kScalars);  // matrices, gradients, two moments
  EXPECT_LE(without, 3 * adapter + kScalars);
  EXPECT_LT(4 * adapter + kScalars, base / 2);  // what the base would cost shows
}

TEST_F(TrainStepTest, the_loss_is_the_mean_over_the_targets_of_all_micro_batches_not_the_mean_of_means) {
  // Two micro-batches of very unlike length: a mean of means would weigh them alike.
  Gemma model = load_tiny_model(tiny_);
  Optimizer optimizer(model.trainable_parameters(), {});
  TrainStep step(model, optimizer, {});
  RowLoader loader(*index_, tokenizer_, false);
  const auto batch_of = [&](std::vector<size_t> rows) {
    std::vector<TokenizedExample> examples;
    std::vector<int64_t> lines;
    for (size_t row : rows) {
      examples.push_back(loader.load(index_->train[row]));
      lines.push_back(index_->train[row].line);
    }
    return pack(examples, lines, "rows.jsonl", {});
  };
  const auto loss_alone = [&](const PackedBatch& batch) {
    step.accumulate(batch, 1);
    return step.apply(0.0, {batch}, 1).loss;
  };
  const PackedBatch one = batch_of({0}), many = batch_of({4, 9, 14});
  const double mean = (loss_alone(one) * static_cast<double>(one.target_tokens) +
                       loss_alone(many) * static_cast<double>(many.target_tokens)) /
                      static_cast<double>(one.target_tokens + many.target_tokens);
  step.accumulate(one, 1);
  step.accumulate(many, 1);
  EXPECT_NEAR(step.apply(0.0, {one, many}, 1).loss, mean, 1e-6);
}

TEST_F(TrainStepTest, clipping_takes_effect_on_the_moments) {
  const auto first_moment_norm = [&](double max_norm) {
    Gemma model = load_tiny_model(tiny_);
    Optimizer optimizer(model.trainable_parameters(), {});
    TrainStep step(model, optimizer, {.max_grad_norm = max_norm});
    BatchStream stream(index_, tokenizer_, {});
    const StepBatches batches = stream.next();
    for (const PackedBatch& batch : batches.micro_batches) step.accumulate(batch, 1);
    const double norm = step.apply(1e-3, batches.micro_batches, 1).grad_norm;
    double sum = 0;
    for (const OptimizerMoments& moments : optimizer.moments()) {
      sum += moments.exp_avg.square().sum().item<double>();
    }
    return std::pair{norm, std::sqrt(sum) / 0.1};  // the first moment is (1 - beta1) times the gradient
  };
  const auto [norm, unclipped] = first_moment_norm(0);
  EXPECT_NEAR(unclipped, norm, 1e-4 * norm);
  const auto [same_norm, clipped] = first_moment_norm(norm / 4);
  EXPECT_EQ(same_norm, norm);  // the norm reported is the one before clipping
  EXPECT_NEAR(clipped, norm / 4, 1e-4 * norm);
  EXPECT_EQ(first_moment_norm(norm * 1.001).second, unclipped);  // a norm below the bound is left alone
}

TEST_F(TrainStepTest, a_norm_that_is_not_finite_changes_nothing_and_names_the_rows) {
  for (OnNonFinite reaction : {OnNonFinite::kStop, OnNonFinite::kSkip}) {
    Gemma model = load_tiny_model(tiny_);
    Optimizer optimizer(model.trainable_parameters(), {});
    TrainStep step(model, optimizer, {.on_nonfinite = reaction});
    BatchStream stream(index_, tokenizer_, {.shuffle = false});
    const StepBatches batches = stream.next();
    step.accumulate(batches.micro_batches[0], 1);
    // The loss is fine, one gradient is not.
    optimizer.parameters().back().tensor.grad()[0] = std::numeric_limits<float>::infinity();
    std::vector<at::Tensor> weights;
    for (const Parameter& parameter : optimizer.parameters()) weights.push_back(parameter.tensor.detach().clone());
    if (reaction == OnNonFinite::kStop) {
      try {
        step.apply(1e-3, batches.micro_batches, 1);
        ADD_FAILURE() << "no error";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kNonFinite);
        EXPECT_THAT(error.what(), AllOf(HasSubstr("step 1: loss 6."), HasSubstr("gradient norm inf"),
                                        HasSubstr("rows.jsonl:1 (id row-0)"), HasSubstr("rows.jsonl:4 (id row-3)")));
      }
    } else {
      const StepStats stats = step.apply(1e-3, batches.micro_batches, 1);
      EXPECT_TRUE(stats.skipped);
      EXPECT_TRUE(std::isinf(stats.grad_norm));
    }
    for (size_t i = 0; i < weights.size(); ++i) {
      EXPECT_TRUE(optimizer.parameters()[i].tensor.equal(weights[i]));
      EXPECT_FALSE(optimizer.parameters()[i].tensor.grad().defined());
    }
    for (const OptimizerMoments& moments : optimizer.moments()) {
      EXPECT_EQ(moments.step.item<float>(), 0.0f);
      EXPECT_EQ(moments.exp_avg.abs().max().item<float>(), 0.0f);
    }
  }
}

TEST_F(TrainStepTest, a_trained_parameter_without_a_gradient_is_named) {
  Gemma model = load_tiny_model(tiny_);
  Optimizer optimizer(model.trainable_parameters(), {});
  TrainStep step(model, optimizer, {});
  BatchStream stream(index_, tokenizer_, {});
  const StepBatches batches = stream.next();
  step.accumulate(batches.micro_batches[0], 1);
  const Parameter& last = optimizer.parameters().back();
  at::Tensor(last.tensor).mutable_grad().reset();
  try {
    step.apply(1e-3, batches.micro_batches, 1);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInternal);
    EXPECT_THAT(error.what(), AllOf(HasSubstr(last.name), HasSubstr("has no gradient")));
  }
}

TEST_F(TrainStepTest, a_rehearsal_leaves_no_trace) {
  Gemma model = load_tiny_model(tiny_);
  model.add_lora({.rank = 2, .dropout = 0.5, .target_modules = {"q_proj"}}, 1);
  model.set_training(true);
  Optimizer optimizer(model.trainable_parameters(), {});
  TrainStep step(model, optimizer, {});
  BatchStream stream(index_, tokenizer_, {.accumulation = 2});
  const StepBatches batches = stream.next();
  const auto state_of = [&] {
    std::vector<at::Tensor> copies;
    for (const Parameter& parameter : model.base_parameters()) copies.push_back(parameter.tensor.detach().clone());
    const RunTensors tensors = run_tensors(model, optimizer);
    for (const auto* group : {&tensors.weights, &tensors.moments}) {
      for (const NamedTensor& entry : *group) copies.push_back(entry.tensor.detach().clone());
    }
    return copies;
  };
  const std::vector<at::Tensor> before = state_of();
  step.rehearse(batches.micro_batches[0], 2, 1);
  const std::vector<at::Tensor> after = state_of();
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(before[i].equal(after[i]));
  for (const Parameter& parameter : optimizer.parameters()) EXPECT_FALSE(parameter.tensor.grad().defined());
  for (const PackedBatch& batch : batches.micro_batches) step.accumulate(batch, 1);
  const StepStats stats = step.apply(1e-3, batches.micro_batches, 1);
  expect_all_counted(stats, batches);  // and not the rehearsal's
}

TEST_F(TrainStepTest, activation_checkpointing_changes_no_bit) {
  const auto loss_and_weights = [&](bool checkpointing) {
    GemmaOptions options;
    options.activation_checkpointing = checkpointing;
    Gemma model = load_tiny_model(tiny_, options);
    Optimizer optimizer(model.trainable_parameters(), {});
    TrainStep step(model, optimizer, {});
    BatchStream stream(index_, tokenizer_, {});
    double loss = 0;
    for (int i = 0; i < 3; ++i) {
      const StepBatches batches = stream.next();
      for (const PackedBatch& batch : batches.micro_batches) step.accumulate(batch, i + 1);
      loss = step.apply(1e-2, batches.micro_batches, i + 1).loss;
    }
    return std::pair{loss, model.head_weight().detach().clone()};
  };
  const auto [plain_loss, plain] = loss_and_weights(false);
  const auto [loss, weights] = loss_and_weights(true);
  EXPECT_EQ(loss, plain_loss);
  EXPECT_TRUE(weights.equal(plain));
}

}  // namespace
}  // namespace gemma_sft
