#include "trainer/run_training.h"

#include <ATen/Context.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "configs/error.h"
#include "model/weights.h"
#include "trainer/checkpoint/checkpointer.h"
#include "trainer/device.h"
#include "trainer/evaluator.h"
#include "trainer/final_model.h"
#include "trainer/observer_group.h"
#include "trainer/optimizer.h"
#include "trainer/resume.h"
#include "trainer/run_completion.h"
#include "trainer/stop_signal.h"
#include "trainer/train_setup.h"
#include "trainer/train_step.h"
#include "trainer/training_failure.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

// A run whose loss is not finite this many steps in a row will not recover by skipping.
constexpr int64_t kMostSkippedInARow = 10;

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

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

void tell_about_skipped(const TrainState& state, const StepBatches& batches, RunObserver& observer) {
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

// Leaves `state` as it is when a stop signal comes in between: the evaluation is then made up for after the restart.
void evaluate(Evaluator& evaluator, TrainState& state, RunObserver& observer) {
  const Stopwatch watch;
  const std::optional<EvaluationLoss> loss = evaluator.run();
  if (!loss) return;
  if (!std::isfinite(loss->sum)) {
    throw Error(ErrorKind::kNonFinite,
                fmt::format("step {}: the evaluation loss is {}; the last checkpoint is from before it", state.step,
                            loss->sum));
  }
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
}

RunCompletion export_final_model(const TrainRequest& request, const TrainSetup& setup, const TrainState& state,
                                 const CheckpointFolders& checkpoints, Gemma& model, FileSystem& files,
                                 RunObserver& observer) {
  const RunConfig& config = request.loaded.config;
  const bool from_best = config.evaluation.keep_best && state.best && state.best->step != state.step;
  RunCompletion completion{
      .run_id = request.place.id,
      .config_sha256 = config_sha256(config),
      .step = state.step,
      .model_step = from_best ? state.best->step : state.step,
      .early_stopped = stops_early(state, config.evaluation) && state.step < setup.plan.total_steps,
      .final_loss = state.last_loss,
      .final_eval_loss = state.last_eval_loss,
      .final_model = {}};
  if (from_best) {
    load_trained_weights(model, checkpoints.folder(completion.model_step));
    observer.on_note(fmt::format("final_model is from the best checkpoint, of step {}", completion.model_step));
  }
  completion.final_model =
      write_folder(request.place.folder / kFinalModelName, files, [&](const fs::path& destination) {
        if (model.has_lora()) {
          return export_adapter(model, base_model_name(config.model.base_model, setup.model_folder), destination,
                                files);
        }
        ExportOptions options;
        options.dtype = config.output.model_dtype.value_or(files_dtype(setup.model_folder));
        return export_model(model, setup.model_folder, destination, files, options);
      });
  write_completion(request.place.folder, completion, files);
  return completion;
}

RunResult result_of(const TrainRequest& request, const TrainState& state, RunOutcome outcome) {
  return {.outcome = outcome,
          .steps = state.step,
          .final_loss = state.last_loss,
          .final_eval_loss = state.last_eval_loss,
          .run_folder = request.place.folder,
          .final_model = outcome == RunOutcome::kStopped ? fs::path() : request.place.folder / kFinalModelName,
          .signal = outcome == RunOutcome::kStopped ? stop_signal() : 0};
}

RunResult result_of(const TrainRequest& request, const RunCompletion& completion) {
  return {.outcome = RunOutcome::kAlreadyFinished,
          .steps = completion.step,
          .final_loss = completion.final_loss,
          .final_eval_loss = completion.final_eval_loss,
          .run_folder = request.place.folder,
          .final_model = request.place.folder / kFinalModelName,
          .signal = 0};
}

}  // namespace

RunResult run_training(const TrainRequest& request, FileSystem& files, const std::vector<RunObserver*>& observers) {
  const RunConfig& config = request.loaded.config;
  const fs::path& folder = request.place.folder;
  files.make_directories(folder);
  const RunLock lock(folder, files);
  if (request.resume == ResumeMode::kAuto) {
    if (const auto completion = find_completion(folder, request.place.id, config))
      return result_of(request, *completion);
  }
  MetricsFile metrics(folder, files);
  std::vector<RunObserver*> everyone = observers;
  everyone.insert(everyone.begin(), &metrics);
  ObserverGroup observer(everyone);

  // What this run is made of, and where it stands.
  if (config.training.deterministic) use_deterministic_kernels();
  const TrainSetup setup = prepare_training(request, observer);
  if (stop_signal() != 0) return result_of(request, {}, RunOutcome::kStopped);
  const TrainPlan& plan = setup.plan;
  CheckpointFolders checkpoints(folder, request.place.id, config.output.keep_checkpoints, files);
  checkpoints.open();
  remove_left_overs(folder / kFinalModelName, files);
  const std::optional<ResumePoint> resume = find_resume_point(request, checkpoints, setup.origin, observer);
  write_file_durably(files, folder / "config.yaml", to_yaml(config));
  write_data_report(folder, setup, files);
  write_run_description(folder, request, setup, "running", files);

  at::manual_seed(config.training.seed);
  Gemma model = load_model(setup, config, request.loaded.file);
  Optimizer optimizer(model.trainable_parameters(), optimizer_options(config.training));
  Checkpointer checkpointer(checkpoints, setup.origin, model, optimizer, files);
  TrainStep train_step(model, optimizer,
                       {.max_grad_norm = config.training.max_grad_norm, .on_nonfinite = config.training.on_nonfinite});
  std::optional<Evaluator> evaluator;
  if (!setup.validation_rows.empty()) {
    evaluator.emplace(model, setup.validation_index, setup.validation_rows, setup.tokenizer, plan.batches);
  }
  TrainState state;
  if (resume) {
    checkpointer.restore(resume->checkpoint);
    state = resume->state;
  }
  metrics.truncate_after(state.step);
  BatchStream stream(setup.index, setup.tokenizer, plan.batches);
  stream.seek(state.cursor);

  const auto save = [&] {
    const Stopwatch watch;
    metrics.sync();
    const fs::path saved = checkpointer.save(state);
    observer.on_checkpoint(state.step, saved.string(), watch.seconds());
    checkpointer.rotate(state, config.evaluation.keep_best);
  };
  // After a step: evaluate where the plan says so, then save where the plan or the evaluation's result asks for it.
  const auto evaluate_and_save = [&] {
    const int64_t evaluated_before = state.evaluated_step;
    if (evaluator && plan.evaluates_after(state.step)) evaluate(*evaluator, state, observer);
    const bool new_best = config.evaluation.keep_best && state.evaluated_step != evaluated_before && state.best &&
                          state.best->step == state.step;
    if (plan.saves_after(state.step) || new_best || stop_signal() != 0 || stops_early(state, config.evaluation)) save();
  };

  observer.on_start(state.step, plan.total_steps);
  if (resume) checkpointer.rotate(state, config.evaluation.keep_best);  // a crash may have come before it
  if (state.step > state.evaluated_step && evaluator && plan.evaluates_after(state.step)) evaluate_and_save();

  while (!is_over(state, plan, config.evaluation) && stop_signal() == 0) {
    const Stopwatch watch;
    const double waited_before = stream.waited_seconds();
    const double rate = plan.schedule.rate(state.step);
    const StepBatches batches = stream.next();
    for (const PackedBatch& batch : batches.micro_batches) train_step.accumulate(batch, state.step + 1);
    const StepStats stats = train_step.apply(rate, batches.micro_batches, state.step + 1);
    advance(state, batches, stats);
    const double seconds = watch.seconds();
    observer.on_step({.step = state.step,
                      .epoch = state.epoch,
                      .loss = stats.loss,
                      .learning_rate = rate,
                      .grad_norm = stats.grad_norm,
                      .tokens = stats.tokens,
                      .target_tokens = stats.target_tokens,
                      .tokens_per_second = static_cast<double>(stats.tokens) / seconds,
                      .step_seconds = seconds,
                      .data_wait_seconds = stream.waited_seconds() - waited_before,
                      .peak_memory_bytes = peak_memory_bytes(setup.device),
                      .device = setup.origin.device});
    tell_about_skipped(state, batches, observer);
    evaluate_and_save();
  }

  if (stop_signal() != 0) {
    write_run_description(folder, request, setup, "stopped", files);
    return result_of(request, state, RunOutcome::kStopped);
  }
  const RunCompletion completion = export_final_model(request, setup, state, checkpoints, model, files, observer);
  write_run_description(folder, request, setup, "finished", files);
  observer.on_finish();
  return result_of(request, state, completion.early_stopped ? RunOutcome::kEarlyStopped : RunOutcome::kFinished);
}

}  // namespace gemma_sft
