#include "trainer/train_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "configs/error.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// num_epochs * steps, rounded up; a hair above a whole number is that number: 0.1 * 30 is 3 steps, not 4.
int64_t part_of(double epochs, int64_t steps) {
  return static_cast<int64_t>(std::ceil(epochs * static_cast<double>(steps) - 1e-9));
}

// Steps of num_epochs whose micro-batches are filled by tokens: each epoch has another number of them.
int64_t count_steps_by_epochs(double num_epochs, const DatasetIndex& index, const BatchOptions& batches) {
  int64_t steps = 0;
  for (int64_t epoch = 0; static_cast<double>(epoch) < num_epochs; ++epoch) {
    throw_if_stopped();  // a million epochs take long
    const double rest = num_epochs - static_cast<double>(epoch);
    const int64_t in_epoch = steps_in_epoch(index, batches, epoch);
    steps += rest < 1.0 ? part_of(rest, in_epoch) : in_epoch;
  }
  return steps;
}

int64_t total_steps_of(const TrainingSection& training, const DatasetIndex& index, const BatchOptions& batches) {
  const std::optional<int64_t> steps = count_steps(training, static_cast<int64_t>(index.train.size()));
  return steps ? *steps : count_steps_by_epochs(training.num_epochs, index, batches);
}

BatchOptions batch_options(const TrainingSection& training, bool parse_control_tokens, int64_t pad_id) {
  BatchOptions options;
  options.batch_size = training.batch_size;
  options.batch_tokens = training.batch_tokens.value_or(0);
  options.accumulation = training.gradient_accumulation_steps;
  options.seed = training.seed;
  options.shuffle = training.shuffle;
  options.parse_control_tokens = parse_control_tokens;
  options.pack = {.packing = training.packing, .pad_id = pad_id};
  return options;
}

}  // namespace

bool TrainPlan::saves_after(int64_t finished_steps) const {
  return finished_steps == total_steps || (checkpoint_every > 0 && finished_steps % checkpoint_every == 0);
}

bool TrainPlan::evaluates_after(int64_t finished_steps, const DataCursor& next) const {
  if (evaluate_epoch_ends) return finished_steps == total_steps || next == DataCursor{next.epoch, 0, 0};
  if (evaluate_every == 0) return false;
  return finished_steps == total_steps || finished_steps % evaluate_every == 0;
}

TrainPlan make_plan(const RunConfig& config, const DatasetIndex& index, int64_t pad_id) {
  TrainPlan plan;
  plan.batches = batch_options(config.training, config.dataset.parse_control_tokens, pad_id);
  plan.steps_per_epoch = steps_in_epoch(index, plan.batches, 0);
  const bool has_validation = !index.validation.empty() || config.dataset.validation_path.has_value();
  plan.total_steps = total_steps_of(config.training, index, plan.batches);
  if (plan.total_steps <= 0) {
    throw Error(ErrorKind::kUsage,
                fmt::format("training.num_epochs: {} of an epoch of {} steps is no step at all; raise it or set "
                            "training.max_steps",
                            config.training.num_epochs, plan.steps_per_epoch));
  }
  if (has_validation) {
    if (config.evaluation.every) {
      plan.evaluate_every = *config.evaluation.every;
    } else if (plan.batches.batch_tokens > 0) {
      plan.evaluate_epoch_ends = true;
    } else {
      plan.evaluate_every = plan.steps_per_epoch;
    }
  }
  plan.warmup_steps = warmup_steps_of(config.training, plan.total_steps);
  plan.checkpoint_every = config.output.checkpoint_every;
  plan.schedule = {.kind = config.training.lr_scheduler,
                   .peak = config.training.learning_rate,
                   .min_ratio = config.training.min_lr_ratio,
                   .warmup_steps = plan.warmup_steps,
                   .total_steps = plan.total_steps};
  return plan;
}

int64_t choose_max_seq_length(const RunConfig& config, int64_t model_maximum) {
  constexpr int64_t kDefault = 2048;
  const int64_t asked = config.model.max_seq_length.value_or(std::min(model_maximum, kDefault));
  if (asked > model_maximum) {
    throw Error(
        ErrorKind::kUsage,
        fmt::format("model.max_seq_length: {} is more than the model's maximum of {}; lower it", asked, model_maximum));
  }
  return asked;
}

IndexOptions make_index_options(const RunConfig& config, int64_t vocab_size, int64_t max_seq_length) {
  IndexOptions options;
  options.format = config.dataset.format;
  options.max_seq_length = max_seq_length;
  options.on_bad_record = config.dataset.on_bad_record;
  options.on_long = config.dataset.on_long;
  options.max_samples = config.dataset.max_samples;
  options.parse_control_tokens = config.dataset.parse_control_tokens;
  options.validation_fraction = config.dataset.validation_fraction;
  options.vocab_size = vocab_size;
  options.stop_requested = [] { return stop_signal() != 0; };
  return options;
}

std::optional<int64_t> count_steps(const TrainingSection& training, std::optional<int64_t> rows) {
  if (training.max_steps) return training.max_steps;
  if (!rows || training.batch_tokens) return std::nullopt;
  const int64_t batches = ceil_divide(*rows, training.batch_size);
  return part_of(training.num_epochs, ceil_divide(batches, training.gradient_accumulation_steps));
}

int64_t warmup_steps_of(const TrainingSection& training, int64_t total_steps) {
  if (training.warmup_steps.value_or(0) > 0) return *training.warmup_steps;
  return static_cast<int64_t>(std::ceil(training.warmup_ratio.value_or(0.0) * static_cast<double>(total_steps)));
}

std::vector<std::string> plan_warnings(const RunConfig& config, int64_t total_steps) {
  std::vector<std::string> warnings;
  const int64_t warmup = warmup_steps_of(config.training, total_steps);
  if (warmup >= total_steps) {
    warnings.push_back(
        fmt::format("training.warmup_steps: the warm-up takes {} steps and the run has {}, so that the learning rate "
                    "never reaches {}; lower it or use training.warmup_ratio",
                    warmup, total_steps, config.training.learning_rate));
  }
  if (config.output.checkpoint_every > total_steps) {
    warnings.push_back(
        fmt::format("output.checkpoint_every: {} is more than the {} steps of the run, so that the only checkpoint is "
                    "the one at the end",
                    config.output.checkpoint_every, total_steps));
  }
  if (config.evaluation.every.value_or(0) > total_steps) {
    warnings.push_back(fmt::format(
        "evaluation.every: {} is more than the {} steps of the run, so that the only evaluation is the one at the end",
        *config.evaluation.every, total_steps));
  }
  return warnings;
}

}  // namespace gemma_sft
