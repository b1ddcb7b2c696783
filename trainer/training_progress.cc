#include "trainer/training_progress.h"

#include <fmt/format.h>

#include <cmath>

#include "configs/error.h"
#include "trainer/stopwatch.h"
#include "trainer/training_failure.h"

namespace gemma_sft {

void check_skipped(const TrainState& state, const StepBatches& batches, RunObserver& observer) {
  if (state.skipped_in_a_row == 0) return;
  const std::string rows = describe_rows(batches.micro_batches);
  if (state.skipped_in_a_row >= kMostSkippedInARow) {
    throw Error(
        ErrorKind::kNonFinite,
        fmt::format("step {}: the loss was not finite in {} steps in a row; the rows of the last one: {}. Lower "
                    "training.learning_rate or look at these rows",
                    state.step, state.skipped_in_a_row, rows));
  }
  observer.on_warning(
      fmt::format("step {}: loss or gradient not finite, step skipped; its rows: {}", state.step, rows));
}

bool stops_early(const TrainState& state, const EvaluationSection& evaluation) {
  return evaluation.early_stopping_patience &&
         state.evaluations_without_improvement >= *evaluation.early_stopping_patience;
}

bool is_over(const TrainState& state, const TrainPlan& plan, const EvaluationSection& evaluation) {
  return state.step >= plan.total_steps || stops_early(state, evaluation);
}

void advance(TrainState& state, const StepBatches& batches, const StepStats& stats) {
  ++state.step;
  state.cursor = batches.cursor;
  state.epoch = batches.epoch;
  state.last_loss = stats.loss;
  state.skipped_in_a_row = stats.skipped ? state.skipped_in_a_row + 1 : 0;
}

bool evaluate(Evaluator& evaluator, TrainState& state, StepWatch& watch_steps, RunObserver& observer) {
  const Stopwatch watch;
  const std::optional<EvaluationLoss> loss = evaluator.run(state.step, &watch_steps);
  if (!loss) return false;
  const bool improved = !state.best || loss->mean() < state.best->loss;
  if (improved) state.best = BestEvaluation{state.step, loss->mean()};
  state.evaluations_without_improvement = improved ? 0 : state.evaluations_without_improvement + 1;
  state.evaluated_step = state.step;
  state.last_eval_loss = loss->mean();
  observer.on_eval({.step = state.step,
                    .epoch = state.epoch,
                    .eval_loss = loss->mean(),
                    .eval_tokens = loss->tokens,
                    .eval_seconds = watch.seconds(),
                    .best = improved});
  return improved;
}

}  // namespace gemma_sft
