#include "trainer/run_training.h"

#include <ATen/Context.h>

#include "trainer/checkpoint/checkpointer.h"
#include "trainer/device.h"
#include "trainer/evaluator.h"
#include "trainer/final_model.h"
#include "trainer/observer_group.h"
#include "trainer/optimizer.h"
#include "trainer/resume.h"
#include "trainer/run/skipped_rows.h"
#include "trainer/run_completion.h"
#include "trainer/run_description.h"
#include "trainer/run_tensors.h"
#include "trainer/stop_signal.h"
#include "trainer/stopwatch.h"
#include "trainer/train_setup.h"
#include "trainer/train_step.h"
#include "trainer/training_progress.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

// Everything that takes part in training, and the loop.
class TrainingLoop {
 public:
  TrainingLoop(const RunConfig& config, const TrainSetup& setup, Gemma& model, CheckpointFolders& checkpoints,
               MetricsFile& metrics, FileSystem& files, RunObserver& observer)
      : config_(config),
        setup_(setup),
        model_(model),
        checkpoints_(checkpoints),
        metrics_(metrics),
        observer_(observer),
        optimizer_(model.trainable_parameters(), optimizer_options(config.training)),
        train_step_(model, optimizer_,
                    {.max_grad_norm = config.training.max_grad_norm, .on_nonfinite = config.training.on_nonfinite}),
        checkpointer_(checkpoints, setup.origin, files),
        stream_(setup.index, setup.tokenizer, setup.plan.batches) {
    if (!setup.validation_rows.empty()) {
      evaluator_.emplace(model, setup.validation_index, setup.validation_rows, setup.tokenizer, setup.plan.batches);
    }
  }

  void continue_from(const ResumePoint& point) {
    restore_checkpoint(point.checkpoint, model_, optimizer_);
    state_ = point.state;
    stream_.seek(state_.cursor);
  }

  // From where the state is to the end of the run, or until a stop signal.
  TrainState run() {
    metrics_.truncate_after(state_.step);
    observer_.on_start(state_.step, setup_.plan.total_steps);
    if (state_.step > 0) make_up_for_what_an_interruption_left_out();

    while (!is_over(state_, setup_.plan, config_.evaluation) && stop_signal() == 0) {
      const Stopwatch watch;
      const double waited_before = stream_.waited_seconds();
      const double rate = setup_.plan.schedule.rate(state_.step);
      const StepBatches batches = stream_.next();
      for (const PackedBatch& batch : batches.micro_batches) train_step_.accumulate(batch, state_.step + 1);
      const StepStats stats = train_step_.apply(rate, batches.micro_batches, state_.step + 1);
      advance(state_, batches, stats);
      observer_.on_step(step_record(stats, rate, watch.seconds(), stream_.waited_seconds() - waited_before));
      check_skipped(state_, batches, observer_);
      evaluate_and_save();
    }
    return state_;
  }

 private:
  bool evaluates_now() const { return evaluator_ && setup_.plan.evaluates_after(state_.step); }

  void evaluate_and_save() {
    const bool best = evaluates_now() && evaluate(*evaluator_, state_, observer_);
    if (setup_.plan.saves_after(state_.step) || (best && config_.evaluation.keep_best) || stop_signal() != 0 ||
        stops_early(state_, config_.evaluation)) {
      save();
    }
  }

  void save() {
    const Stopwatch watch;
    metrics_.sync();  // rows that a resume would count on
    const fs::path saved = checkpointer_.save(state_, run_tensors(model_, optimizer_));
    observer_.on_checkpoint(state_.step, saved.string(), watch.seconds());
    rotate();
  }

  void rotate() {
    const bool keeps_best = config_.evaluation.keep_best && state_.best;
    checkpoints_.rotate(state_.step, keeps_best ? std::optional<int64_t>(state_.best->step) : std::nullopt);
  }

  // A crash may have come between a save and its rotation, a signal between a step and its evaluation.
  void make_up_for_what_an_interruption_left_out() {
    rotate();
    if (evaluates_now() && state_.evaluated_step < state_.step) evaluate_and_save();
  }

  StepRecord step_record(const StepStats& stats, double rate, double seconds, double waited) const {
    return {.step = state_.step,
            .epoch = state_.epoch,
            .loss = stats.loss,
            .learning_rate = rate,
            .grad_norm = stats.grad_norm,
            .tokens = stats.tokens,
            .target_tokens = stats.target_tokens,
            .tokens_per_second = static_cast<double>(stats.tokens) / seconds,
            .step_seconds = seconds,
            .data_wait_seconds = waited,
            .peak_memory_bytes = peak_memory_bytes(setup_.device),
            .device = setup_.origin.device};
  }

  const RunConfig& config_;
  const TrainSetup& setup_;
  Gemma& model_;
  CheckpointFolders& checkpoints_;
  MetricsFile& metrics_;
  RunObserver& observer_;
  TrainState state_;
  Optimizer optimizer_;
  TrainStep train_step_;
  Checkpointer checkpointer_;
  BatchStream stream_;
  std::optional<Evaluator> evaluator_;  // when there is validation data
};

RunResult stopped(const TrainRequest& request, const TrainState& state) {
  return {.outcome = RunOutcome::kStopped,
          .steps = state.step,
          .final_loss = state.last_loss,
          .final_eval_loss = state.last_eval_loss,
          .run_folder = request.place.folder,
          .final_model = {},
          .signal = stop_signal()};
}

RunResult completed(const TrainRequest& request, const RunCompletion& completion, RunOutcome outcome) {
  return {.outcome = outcome,
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
  const RunLock lock(folder, files);
  if (request.resume == ResumeMode::kAuto) {
    const auto completion = find_completion(folder, request.place.id, config);
    if (completion) return completed(request, *completion, RunOutcome::kAlreadyFinished);
  }
  MetricsFile metrics(folder, files);
  std::vector<RunObserver*> everyone = {&metrics};
  everyone.insert(everyone.end(), observers.begin(), observers.end());
  ObserverGroup observer(everyone);

  // What the run is made of, and where it stands.
  if (config.training.deterministic) use_deterministic_kernels();
  SkippedRows skipped(folder, files);
  const TrainSetup setup = prepare_training(request, observer, [&](const RowProblem& row) { skipped.add(row); });
  if (stop_signal() != 0) return stopped(request, {});
  CheckpointFolders checkpoints(folder, request.place.id, config.output.keep_checkpoints, files);
  checkpoints.open();
  remove_left_overs(folder / kFinalModelName, files);
  const std::optional<ResumePoint> resume = find_resume_point(request, checkpoints, setup.origin, observer);
  write_file_durably(files, folder / "config.yaml", to_yaml(config));
  skipped.publish();
  write_data_report(folder, setup, files);
  write_run_description(folder, request, setup, "running", files);

  at::manual_seed(config.training.seed);
  Gemma model = load_model(setup, config, request.loaded.file);
  choose_activation_checkpointing(model, setup, config, observer);
  if (!setup.device.is_cpu()) observer.on_note(model.describe_kernels());
  TrainState state;
  {
    TrainingLoop loop(config, setup, model, checkpoints, metrics, files, observer);
    if (resume) loop.continue_from(*resume);
    state = loop.run();
  }  // gradients and moments are gone before the export needs room
  if (stop_signal() != 0) {
    write_run_description(folder, request, setup, "stopped", files);
    return stopped(request, state);
  }
  const RunCompletion completion = export_final_model(request, setup, state, checkpoints, model, files, observer);
  write_run_description(folder, request, setup, "finished", files);
  observer.on_finish();
  return completed(request, completion, completion.early_stopped ? RunOutcome::kEarlyStopped : RunOutcome::kFinished);
}

}  // namespace gemma_sft
