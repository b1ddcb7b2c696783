#include "trainer/run_training.h"

#include <ATen/Context.h>
#include <fmt/format.h>

#include <exception>
#include <optional>

#include "configs/choice_names.h"
#include "model/weight_files.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/device.h"
#include "trainer/evaluator.h"
#include "trainer/final_model.h"
#include "trainer/observer_group.h"
#include "trainer/optimizer.h"
#include "trainer/process_memory.h"
#include "trainer/resume.h"
#include "trainer/run/samples_file.h"
#include "trainer/run/skipped_rows.h"
#include "trainer/run_completion.h"
#include "trainer/run_description.h"
#include "trainer/run_saver.h"
#include "trainer/run_tensors.h"
#include "trainer/step_watch.h"
#include "trainer/stop_signal.h"
#include "trainer/stopwatch.h"
#include "trainer/train_setup.h"
#include "trainer/train_step.h"
#include "trainer/training_failure.h"
#include "trainer/training_progress.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

// metrics.jsonl and samples.jsonl: they always stand at the same step.
class RunRows {
 public:
  RunRows(const fs::path& folder, bool with_samples, FileSystem& files) : metrics_(folder, files) {
    if (with_samples) samples_.emplace(folder, files);
  }
  std::vector<RunObserver*> observers() {
    std::vector<RunObserver*> all = {&metrics_};
    if (samples_) all.push_back(&*samples_);
    return all;
  }
  // The names of the files in which rows before that are missing.
  std::vector<std::string> truncate_after(const TrainState& state) {
    std::vector<std::string> incomplete;
    if (metrics_.truncate_after(state.step, state.evaluated_step) != state.step) incomplete.emplace_back(kMetricsName);
    if (samples_ && samples_->truncate_after(state.step) != state.step) incomplete.emplace_back(kSamplesName);
    return incomplete;
  }
  int64_t last_step() const { return metrics_.last_step(); }
  void sync() {
    metrics_.sync();
    if (samples_) samples_->sync();
  }

 private:
  MetricsFile metrics_;
  std::optional<SamplesFile> samples_;  // output.log_samples
};

std::vector<std::vector<std::string>> ids_of(const StepBatches& batches) {
  std::vector<std::vector<std::string>> ids;
  for (const PackedBatch& batch : batches.micro_batches) ids.push_back(batch.row_ids);
  return ids;
}

// The folder has checkpoints of a run that went further than where this one goes on: this one is taken back.
bool goes_further(const CheckpointFolders& checkpoints, const TrainState& state) {
  return !checkpoints.steps().empty() && *checkpoints.steps().rbegin() > state.step;
}

// Everything that takes part in training, and the loop.
class TrainingLoop {
 public:
  TrainingLoop(const TrainRequest& request, const TrainSetup& setup, Gemma& model, CheckpointFolders& checkpoints,
               RunRows& rows, const RunLock& lock, const std::function<void()>& describe, FileSystem& files,
               RunObserver& observer)
      : config_(request.loaded.config),
        setup_(setup),
        model_(model),
        checkpoints_(checkpoints),
        rows_(rows),
        lock_(lock),
        describe_(describe),
        observer_(observer),
        optimizer_(model.trainable_parameters(), optimizer_options(config_.training)),
        train_step_(model, optimizer_,
                    {.max_grad_norm = config_.training.max_grad_norm, .on_nonfinite = config_.training.on_nonfinite}),
        saver_(checkpoints, setup.origin, files, observer,
               {.in_background = config_.output.background_save.value_or(!setup.device.is_cpu()),
                .keeps_best = config_.evaluation.keep_best,
                .free_bytes = available_memory_bytes}),
        stream_(setup.index, setup.tokenizer, setup.plan.batches),
        watch_(config_.training.step_timeout, request.on_stall) {
    if (!setup.validation_rows.empty()) {
      evaluator_.emplace(model, setup.validation_index, setup.validation_rows, setup.tokenizer, setup.plan.batches);
    }
  }

  void continue_from(const ResumePoint& point) {
    with_memory_errors_explained({"reading the checkpoint", point.state.step},
                                 [&] { restore_checkpoint(point.checkpoint, model_, optimizer_); });
    state_ = point.state;
    saved_step_ = state_.step;
    stream_.seek(state_.cursor);
  }

  // From where the state is to the end of the run, or until a stop signal. `largest`: of the steps to come, where
  // training.preflight is on.
  TrainState run(const LargestMicroBatch& largest) {
    try {
      train(largest);
    } catch (...) {
      watch_.end();  // the step is over, and a save under way may take longer than a step
      saver_.wait_and_warn();
      throw;
    }
    return state_;
  }

 private:
  void train(const LargestMicroBatch& largest) {
    if (!is_taken_back()) cut_rows();  // of steps that were not saved
    observer_.on_start(state_.step, setup_.plan.total_steps);
    if (state_.step > 0) make_up_for_what_an_interruption_left_out();
    if (!setup_.device.is_cpu() && goes_on()) choose_kernels(largest);
    if (config_.training.preflight && goes_on()) preflight(largest);

    while (goes_on()) {
      const Stopwatch watch;
      const double waited_before = stream_.waited_seconds();
      const double rate = setup_.plan.schedule.rate(state_.step);
      const StepStats stats = take_step(rate);
      lock_.require_held();
      if (is_taken_back()) leave_the_old_future();
      advance(state_, batches_, stats);
      observer_.on_step(step_record(stats, rate, watch.seconds(), stream_.waited_seconds() - waited_before));
      check_skipped(state_, batches_, observer_);
      saver_.collect();
      evaluate_and_save();
    }
    // The signal may have come at any point since the step.
    if (stop_signal() != 0 && saved_step_ != state_.step) save();
    saver_.wait();
  }

  bool goes_on() const { return !is_over(state_, setup_.plan, config_.evaluation) && stop_signal() == 0; }
  bool evaluates_now() const { return evaluator_ && setup_.plan.evaluates_after(state_.step, state_.cursor); }

  StepStats take_step(double rate) {
    const int64_t step = state_.step + 1;
    watch_.begin(step, "waiting for data");
    with_memory_errors_explained({"waiting for data", step}, [&] { batches_ = stream_.next(); });
    const size_t count = batches_.micro_batches.size();
    for (size_t i = 0; i < count; ++i) {
      const PackedBatch& batch = batches_.micro_batches[i];
      watch_.enter(fmt::format("forward and backward pass, micro-batch {} of {}", i + 1, count),
                   describe_rows({batch}));
      train_step_.accumulate(batch, step);
    }
    watch_.enter("optimizer step", describe_rows(batches_.micro_batches));
    const StepStats stats = train_step_.apply(rate, batches_.micro_batches, step);
    watch_.end();
    return stats;
  }

  // A run that is to repeat itself takes no way by the clock.
  void choose_kernels(const LargestMicroBatch& largest) {
    if (!config_.training.deterministic) {
      const int64_t step = state_.step + largest.steps_ahead + 1;
      watch_.begin(step, "timing attention");
      const StepBatches batches = step_at(largest.step_start);
      const PackedBatch& batch = batches.micro_batches.at(largest.micro_batch);
      with_memory_errors_explained({"timing attention", step, &batch},
                                   [&] { model_.choose_attention(to_device(batch, setup_.device)); });
      watch_.end();
    }
    observer_.on_note(model_.describe_kernels());
  }

  // What needs the most memory comes first, and leaves no trace in the numbers of the run.
  void preflight(const LargestMicroBatch& largest) {
    const Stopwatch watch;
    const int64_t step = state_.step + largest.steps_ahead + 1;
    watch_.begin(step, "preflight");
    const StepBatches batches = step_at(largest.step_start);
    const PackedBatch& batch = batches.micro_batches.at(largest.micro_batch);
    const std::vector<NamedTensor> random = random_states(setup_.device);
    train_step_.rehearse(batch, batches.micro_batches.size() > 1 ? 2 : 1, step);
    set_random_states(setup_.device, random);
    watch_.end();
    observer_.on_note(
        fmt::format("preflight: the largest micro-batch of the run, {} rows with {} tokens in step {}, "
                    "went forward and backward in {:.1f} s",
                    batch.documents(), batch.tokens(), step, watch.seconds()));
  }

  StepBatches step_at(const DataCursor& cursor) const {
    BatchStream stream(setup_.index, setup_.tokenizer, setup_.plan.batches);
    stream.seek(cursor);
    return stream.next();
  }

  void evaluate_and_save() {
    const bool best = evaluates_now() && evaluate(*evaluator_, state_, watch_, observer_);
    if (setup_.plan.saves_after(state_.step) || (best && config_.evaluation.keep_best) ||
        stops_early(state_, config_.evaluation)) {
      save();
    }
  }

  void save() {
    const RunTensors tensors = run_tensors(model_, optimizer_);
    if (const auto name = find_not_finite(tensors)) return refuse_to_save(*name);
    rows_.sync();  // rows that a resume would count on
    saver_.save(state_, tensors, goes_on());
    saved_step_ = state_.step;
  }

  // While steps are being skipped the next ones may show the cause, and are counted; otherwise the run ends here.
  void refuse_to_save(const std::string& name) {
    const std::string what =
        fmt::format("step {}: {} holds NaN or an infinite number; nothing was saved", state_.step, name);
    if (state_.skipped_in_a_row > 0 && state_.step < setup_.plan.total_steps) return observer_.on_warning(what);
    throw Error(ErrorKind::kNonFinite,
                fmt::format("{}, and the last checkpoint is from before it. The rows of the step: {}. Look at these "
                            "rows, or lower training.learning_rate",
                            what, describe_rows(batches_.micro_batches)));
  }

  // A crash may have come between a save and its rotation, a signal between a step and its evaluation.
  void make_up_for_what_an_interruption_left_out() {
    if (!is_taken_back()) saver_.rotate(state_);
    if (!evaluates_now() || state_.evaluated_step >= state_.step) return;
    if (is_taken_back()) leave_the_old_future();
    evaluate_and_save();
  }

  // Only of a run that goes on in its own folder can rows be missing.
  void cut_rows() {
    const bool is_continued = checkpoints_.steps().contains(state_.step);
    for (const std::string& name : rows_.truncate_after(state_)) {
      if (!is_continued) continue;
      observer_.on_warning(
          fmt::format("{}: its rows do not reach to step {}, from which the run goes on; they were lost, or "
                      "not written (output.log_samples)",
                      name, state_.step));
    }
  }

  bool is_taken_back() const { return goes_further(checkpoints_, state_); }

  // Once a step is done, so that a start that fails changes nothing. In this order a crash leaves a run that was not
  // taken back, only shorter: a plain start goes on from what is there, and its rows are there, too.
  void leave_the_old_future() {
    describe_();
    checkpoints_.remove_after(state_.step);
    cut_rows();
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
            .device = setup_.origin.device,
            .sample_ids = ids_of(batches_)};
  }

  const RunConfig& config_;
  const TrainSetup& setup_;
  Gemma& model_;
  CheckpointFolders& checkpoints_;
  RunRows& rows_;
  const RunLock& lock_;
  const std::function<void()>& describe_;  // what the folder says about the run
  RunObserver& observer_;
  TrainState state_;
  Optimizer optimizer_;
  TrainStep train_step_;
  RunSaver saver_;
  BatchStream stream_;
  std::optional<Evaluator> evaluator_;  // when there is validation data
  StepWatch watch_;
  StepBatches batches_;     // of the last step
  int64_t saved_step_ = 0;  // the newest checkpoint's
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

// The last word of a run_manifest.json that would say "running" for ever. What failed is told by whoever catches it,
// whether it can be written down or not. A folder that was complete before (--resume DIR) is so still.
void write_down_failure(const TrainRequest& request, const TrainSetup& setup, FileSystem& files) {
  const fs::path& folder = request.place.folder;
  try {
    const bool complete = find_completion(folder, request.place.id, request.loaded.config).has_value();
    write_run_description(folder, request, setup, complete ? "finished" : "failed", files);
  } catch (const std::exception&) {
    // The disk may be full.
  }
}

// Only the checkpoints could give the numbers that a finished run did not write, and they may be gone.
void warn_of_another_dtype(const TrainRequest& request, const std::vector<RunObserver*>& observers) {
  const std::optional<ModelDtype>& asked = request.loaded.config.output.model_dtype;
  const fs::path model = request.place.folder / kFinalModelName;
  if (!asked || !fs::exists(model / "config.json")) return;
  const ModelDtype written = files_dtype(model);
  if (written == *asked) return;
  for (RunObserver* observer : observers) {
    observer->on_warning(fmt::format(
        "{}: is in {}, and output.model_dtype is {} now; gemma-sft export --input {} --dtype {} writes the "
        "last checkpoint's weights so",
        model.string(), choice_name(written), choice_name(*asked), request.place.folder.string(), choice_name(*asked)));
  }
}

// One run in a folder that is locked. `state` is kept up to date as far as a stop needs it, `place` says what is done.
RunResult run(const TrainRequest& request, FileSystem& files, RunRows& rows, RunObserver& observer, TrainState& state,
              const RunLock& lock, WorkPlace& place) {
  const RunConfig& config = request.loaded.config;
  const fs::path& folder = request.place.folder;

  // What the run is made of, and where it stands.
  if (config.training.deterministic) use_deterministic_kernels();
  SkippedRows skipped(folder, files);
  place.phase = "reading the data";
  const TrainSetup setup = prepare_training(request, observer, [&](const RowProblem& row) { skipped.add(row); });
  place.phase = "verifying the checkpoints";
  CheckpointFolders checkpoints(folder, request.place.id, config.output.keep_checkpoints, files);
  checkpoints.open(throw_if_stopped);
  remove_left_overs(folder / kFinalModelName, files);
  const std::optional<ResumePoint> resume = find_resume_point(request, checkpoints, setup.origin, observer);
  if (resume) state = resume->state;
  if (!resume) require_nothing_lost(request, rows.last_step());
  place.phase = "getting ready to train";

  bool is_described = false;
  const std::function<void()> describe = [&] {
    is_described = true;
    remove_completion(folder, files);
    write_file_durably(files, folder / "config.yaml", to_yaml(config));
    skipped.publish();
    write_data_report(folder, setup, files);
    write_run_description(folder, request, setup, "running", files);
  };
  // A start that names a checkpoint leaves what goes further, or is complete, as it is until there is something new.
  const bool waits = request.resume == ResumeMode::kFolder &&
                     (goes_further(checkpoints, state) || find_completion(folder, request.place.id, config));
  if (!waits) describe();
  try {
    at::manual_seed(config.training.seed);
    Gemma model = load_model(setup, config, request.loaded.file);
    const bool by_memory = config.training.activation_checkpointing == ActivationCheckpointing::kAuto;
    LargestMicroBatch largest;
    if (by_memory || config.training.preflight || !setup.device.is_cpu()) {
      largest =
          find_largest_micro_batch(*setup.index, setup.plan.batches, state.cursor, setup.plan.total_steps - state.step);
    }
    if (by_memory) choose_activation_checkpointing(model, largest, observer);
    place.phase = "making the optimizer";
    std::optional<TrainingLoop> loop;
    loop.emplace(request, setup, model, checkpoints, rows, lock, describe, files, observer);
    if (resume) loop->continue_from(*resume);
    place.phase = "training";
    state = loop->run(largest);
    loop.reset();  // gradients and moments are gone before the export needs room
    throw_if_stopped();
    lock.require_held();
    if (!is_described) describe();
    place.phase = "writing final_model";
    const RunCompletion completion = export_final_model(request, setup, state, checkpoints, model, files, observer);
    write_run_description(folder, request, setup, "finished", files);
    write_completion(folder, completion, files);  // the last file: with it the run is left alone
    observer.on_finish();
    return completed(request, completion, completion.early_stopped ? RunOutcome::kEarlyStopped : RunOutcome::kFinished);
  } catch (const StopRequested&) {
    if (is_described && lock.is_held()) write_run_description(folder, request, setup, "stopped", files);
    throw;
  } catch (const std::exception&) {
    if (is_described && lock.is_held()) write_down_failure(request, setup, files);
    throw;
  }
}

}  // namespace

RunResult run_training(const TrainRequest& request, FileSystem& files, const std::vector<RunObserver*>& observers) {
  const RunConfig& config = request.loaded.config;
  const fs::path& folder = request.place.folder;
  const RunLock lock(folder, files);
  TrainState state;
  RunResult result;
  WorkPlace place{.phase = "opening the run folder"};
  try {
    with_memory_errors_explained(place, [&] {
      if (request.resume == ResumeMode::kAuto) {
        if (const auto completion = find_completion(folder, request.place.id, config)) {
          warn_of_another_dtype(request, observers);
          result = completed(request, *completion, RunOutcome::kAlreadyFinished);
          return;
        }
      }
      RunRows rows(folder, config.output.log_samples, files);
      std::vector<RunObserver*> everyone = rows.observers();
      everyone.insert(everyone.end(), observers.begin(), observers.end());
      ObserverGroup observer(everyone);
      result = run(request, files, rows, observer, state, lock, place);
    });
  } catch (const StopRequested&) {
    result = stopped(request, state);
  }
  return result;
}

}  // namespace gemma_sft
