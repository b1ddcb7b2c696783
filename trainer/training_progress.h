// How TrainState moves on: after a step, after an evaluation; and when a run is over.
#pragma once

#include "configs/run_config.h"
#include "data/batches/batch_stream.h"
#include "trainer/checkpoint/train_state.h"
#include "trainer/evaluator.h"
#include "trainer/run/run_observer.h"
#include "trainer/train_plan.h"
#include "trainer/train_step.h"

namespace gemma_sft {

// A run whose loss is not finite this many steps in a row will not recover by skipping them.
inline constexpr int64_t kMostSkippedInARow = 10;

// All steps are done, or evaluation.early_stopping_patience evaluations in a row were no better than the best.
bool is_over(const TrainState& state, const TrainPlan& plan, const EvaluationSection& evaluation);
bool stops_early(const TrainState& state, const EvaluationSection& evaluation);

// A step is finished: it takes one more, and the data after it is next.
void advance(TrainState& state, const StepBatches& batches, const StepStats& stats);

// Warns of a skipped step; throws Error(kNonFinite) when it was the last of kMostSkippedInARow.
void check_skipped(const TrainState& state, const StepBatches& batches, RunObserver& observer);

// Evaluates and takes down the result; true when it is the best so far. When a stop signal comes in between `state`
// stays as it is: the evaluation is made up for after the restart. Throws Error(kNonFinite).
bool evaluate(Evaluator& evaluator, TrainState& state, StepWatch& watch_steps, RunObserver& observer);

}  // namespace gemma_sft
