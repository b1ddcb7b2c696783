// A run that was interrupted in any way ends with the same bytes as one that was not.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <fstream>

#include "configs/error.h"
#include "tests/testing/failing_file_system.h"
#include "tests/trainer/send_signal.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/checkpoint/checkpoint_format.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

using Assignments = std::vector<std::string>;

// Ends a run after a step, as a preempted machine would.
struct StopAfter : RecordingObserver {
  explicit StopAfter(int64_t step) : at(step) {}
  void on_step(const StepRecord& record) override {
    RecordingObserver::on_step(record);
    if (record.step == at) send_stop_signal(SIGTERM);
  }
  int64_t at;
};

Assignments operator+(Assignments a, const Assignments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

RunResult train(const TrainRequest& request, RunObserver* observer = nullptr, FileSystem& files = real_file_system()) {
  install_stop_signals();
  std::vector<RunObserver*> observers;
  if (observer != nullptr) observers.push_back(observer);
  const RunResult result = run_training(request, files, observers);
  install_stop_signals();
  return result;
}

std::string error_of(const TrainRequest& request, ErrorKind kind) {
  try {
    train(request);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

// The files of the last checkpoint and of final_model: what an interrupted run must have in common with one that was
// not. An extra checkpoint where it was stopped is fine.
std::map<std::string, std::string> end_of(const fs::path& run_folder, int64_t last_step) {
  std::map<std::string, std::string> digests = digests_of_results(run_folder);
  const std::string last = "checkpoint-" + std::to_string(last_step) + "/";
  std::erase_if(digests, [&](const auto& entry) {
    return entry.first.starts_with("checkpoint-") && !entry.first.starts_with(last);
  });
  return digests;
}

class ResumeMatrixTest : public ::testing::TestWithParam<Assignments> {};

TEST_P(ResumeMatrixTest, stopped_after_any_step_and_restarted_gives_the_same_bytes) {
  const TinyRun tiny;
  at::set_num_threads(GetParam() == Assignments{"threads"} ? 2 : 1);
  const Assignments chosen = GetParam() == Assignments{"threads"} ? Assignments{} : GetParam();
  // Two epochs of six steps (11 rows, 2 a step whatever the micro-batches), saved at the end only: the stop saves, too.
  const Assignments assignments = Assignments{"training.num_epochs=2", "output.checkpoint_every=0"} + chosen;
  RecordingObserver observer;
  const RunResult whole = train(tiny.request(assignments, "whole"), &observer);
  ASSERT_EQ(whole.outcome, RunOutcome::kFinished);
  const auto wanted = end_of(tiny.run_folder("whole"), whole.steps);
  const auto wanted_metrics = lasting_metrics(tiny.run_folder("whole"));
  ASSERT_FALSE(wanted.empty());
  const int64_t steps_per_epoch = observer.total_steps / 2;
  std::set<int64_t> stops = {1, 3, steps_per_epoch, steps_per_epoch + 2, observer.total_steps};
  if (at::get_num_threads() > 1) stops = {3};  // slow on a busy machine
  for (int64_t stop : stops) {
    // The run's id is in its checkpoints, so that both must have the same.
    TrainRequest request = tiny.request(assignments, "stopped-" + std::to_string(stop));
    request.place.id = "whole";
    StopAfter stopper(stop);
    const RunResult first = train(request, &stopper);
    ASSERT_EQ(first.outcome, RunOutcome::kStopped);
    ASSERT_EQ(first.steps, stop);
    const RunResult second = train(request);
    EXPECT_EQ(second.outcome, RunOutcome::kFinished);
    EXPECT_EQ(second.final_loss, whole.final_loss);
    EXPECT_EQ(end_of(request.place.folder, whole.steps), wanted) << "stopped after step " << stop;
    EXPECT_EQ(lasting_metrics(request.place.folder), wanted_metrics) << "stopped after step " << stop;
  }
}

// What the matrix of resume_matrix_test.cc does not hold.
INSTANTIATE_TEST_SUITE_P(
    all, ResumeMatrixTest,
    ::testing::Values(Assignments{"threads"}, Assignments{"training.batch_size=null", "training.batch_tokens=150"},
                      Assignments{"training.activation_checkpointing=true"}, Assignments{"training.deterministic=true"},
                      Assignments{"lora.rank=2", "lora.dropout=0.3", "training.precision=bf16",
                                  "training.activation_checkpointing=true", "training.packing=false"},
                      Assignments{"dataset.validation_fraction=0.3", "evaluation.keep_best=true"}));

class ResumeTest : public ::testing::Test {
 protected:
  // A run of eight steps with a checkpoint after every second, of which the last two stay, stopped after six.
  TrainRequest stopped_run(const Assignments& more = {}) {
    const TrainRequest request = tiny_.request(kEight + more);
    StopAfter stopper(6);
    train(request, &stopper);
    return request;
  }
  std::map<std::string, std::string> uninterrupted() {
    TrainRequest request = tiny_.request(kEight, "uninterrupted");
    request.place.id = "run";
    train(request);
    return digests_of_results(request.place.folder);
  }
  void flip_byte(const fs::path& path, size_t byte) {
    std::string bytes = read_file(path);
    bytes.at(byte) = static_cast<char>(bytes[byte] ^ 0x10);
    std::ofstream(path, std::ios::binary) << bytes;
  }

  const Assignments kEight = {"training.max_steps=8"};
  TinyRun tiny_;
  RecordingObserver observer_;
};

TEST_F(ResumeTest, a_broken_checkpoint_is_named_and_the_one_before_it_used) {
  const auto wanted = uninterrupted();
  for (const char* name :
       {"model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json", "manifest.json"}) {
    fs::remove_all(tiny_.run_folder());
    const TrainRequest request = stopped_run();
    flip_byte(tiny_.run_folder() / "checkpoint-6" / name, 100);
    RecordingObserver observer;
    EXPECT_EQ(train(request, &observer).outcome, RunOutcome::kFinished);
    EXPECT_EQ(observer.first_step, 4);
    EXPECT_THAT(observer.warnings, Contains(HasSubstr("checkpoint-6: not used")));
    EXPECT_EQ(digests_of_results(tiny_.run_folder()), wanted) << name;
    EXPECT_EQ(lasting_metrics(tiny_.run_folder()), lasting_metrics(tiny_.run_folder("uninterrupted")));
  }
}

TEST_F(ResumeTest, where_no_checkpoint_verifies_nothing_is_started_anew) {
  const TrainRequest request = stopped_run();
  flip_byte(tiny_.run_folder() / "checkpoint-6/model.safetensors", 2000);
  fs::remove(tiny_.run_folder() / "checkpoint-4/manifest.json");
  const auto metrics = read_file(tiny_.run_folder() / "metrics.jsonl");
  EXPECT_THAT(error_of(request, ErrorKind::kCheckpoint),
              AllOf(HasSubstr("no checkpoint can be used"), HasSubstr("checkpoint-6: model.safetensors: SHA-256"),
                    HasSubstr("checkpoint-4: has no manifest.json"), HasSubstr("--resume never")));
  EXPECT_EQ(read_file(tiny_.run_folder() / "metrics.jsonl"), metrics);
}

TEST_F(ResumeTest, a_run_whose_checkpoints_are_gone_is_not_begun_anew) {
  const auto remove_checkpoints = [&] {
    for (const char* name : {"checkpoint-4", "checkpoint-6", "checkpoint-8"}) fs::remove_all(tiny_.run_folder() / name);
  };
  const TrainRequest request = stopped_run();
  remove_checkpoints();
  const std::string rows = read_file(tiny_.run_folder() / "metrics.jsonl");
  EXPECT_THAT(error_of(request, ErrorKind::kCheckpoint),
              HasSubstr("metrics.jsonl has steps up to 6, a checkpoint was due every 2, and none is there"));
  EXPECT_EQ(read_file(tiny_.run_folder() / "metrics.jsonl"), rows);

  fs::remove_all(tiny_.run_folder());
  ASSERT_EQ(train(tiny_.request(kEight)).outcome, RunOutcome::kFinished);
  remove_checkpoints();
  const auto finished = digests_of_results(tiny_.run_folder());
  EXPECT_THAT(error_of(tiny_.request(kEight + Assignments{"training.learning_rate=1e-3"}), ErrorKind::kCheckpoint),
              HasSubstr("a run was finished here, with another configuration or another final_model"));
  EXPECT_EQ(digests_of_results(tiny_.run_folder()), finished);
  EXPECT_EQ(train(tiny_.request(kEight)).outcome, RunOutcome::kAlreadyFinished);
}

// Killed before its first checkpoint.
TEST_F(ResumeTest, a_run_that_had_no_checkpoint_yet_begins_anew) {
  const auto wanted = uninterrupted();
  const TrainRequest request = stopped_run();
  for (const char* name : {"checkpoint-4", "checkpoint-6"}) fs::remove_all(tiny_.run_folder() / name);
  fs::resize_file(tiny_.run_folder() / "metrics.jsonl", 0);
  EXPECT_EQ(train(request, &observer_).outcome, RunOutcome::kFinished);
  EXPECT_EQ(observer_.first_step, 0);
  EXPECT_EQ(digests_of_results(tiny_.run_folder()), wanted);
}

TEST_F(ResumeTest, rows_that_are_missing_below_a_checkpoint_are_told) {
  const TrainRequest request = stopped_run();
  const fs::path metrics = tiny_.run_folder() / "metrics.jsonl";
  const std::string rows = read_file(metrics);
  std::ofstream(metrics) << rows.substr(0, rows.find('\n') + 1);
  EXPECT_EQ(train(request, &observer_).outcome, RunOutcome::kFinished);
  EXPECT_THAT(observer_.warnings, Contains(HasSubstr("metrics.jsonl: its rows do not reach to step 6")));
}

TEST_F(ResumeTest, a_row_of_another_step_in_the_middle_costs_none_behind_it) {
  const TrainRequest request = stopped_run();
  const fs::path metrics = tiny_.run_folder() / "metrics.jsonl";
  std::string rows = read_file(metrics);
  const size_t third = rows.find("\"step\":3");
  ASSERT_NE(third, std::string::npos);
  std::ofstream(metrics) << rows.replace(third, 8, "\"step\":93");
  EXPECT_EQ(train(request, &observer_).outcome, RunOutcome::kFinished);
  EXPECT_EQ(lasting_metrics(tiny_.run_folder()).size(), 8u);
  EXPECT_THAT(observer_.warnings, ::testing::Not(Contains(HasSubstr("do not reach"))));
}

TEST_F(ResumeTest, a_changed_data_file_is_refused_unless_allowed) {
  TrainRequest request = stopped_run();
  tiny_.files().write("data.jsonl", make_rows(12));
  EXPECT_THAT(error_of(request, ErrorKind::kCheckpoint), HasSubstr("the data file: SHA-256 was"));
  request.allowed_changes = {AllowedChange::kData};
  EXPECT_EQ(train(request, &observer_).outcome, RunOutcome::kFinished);
  EXPECT_THAT(observer_.warnings, Contains(HasSubstr("continuing although the data file")));
}

TEST_F(ResumeTest, a_data_file_that_only_moved_is_no_change) {
  stopped_run();
  fs::copy_file(tiny_.data(), tiny_.files() / "moved.jsonl");
  EXPECT_EQ(train(tiny_.request(kEight + Assignments{"dataset.data_path=" + (tiny_.files() / "moved.jsonl").string()}))
                .outcome,
            RunOutcome::kFinished);
}

TEST_F(ResumeTest, a_shrunken_data_file_that_is_allowed_goes_on_with_its_next_epoch) {
  TrainRequest request = stopped_run();  // at the end of the first epoch of six steps
  tiny_.files().write("data.jsonl", make_rows(3));
  request.allowed_changes = {AllowedChange::kData};
  const RunResult result = train(request);
  EXPECT_EQ(result.outcome, RunOutcome::kFinished);
  EXPECT_EQ(result.steps, 8);
}

TEST_F(ResumeTest, a_changed_setting_is_refused_by_name_unless_allowed) {
  stopped_run();
  TrainRequest request = tiny_.request(kEight + Assignments{"training.learning_rate=1e-3"});
  EXPECT_THAT(error_of(request, ErrorKind::kCheckpoint), HasSubstr("training.learning_rate was 0.01 and is 0.001"));
  request.allowed_changes = {AllowedChange::kConfig};
  EXPECT_EQ(train(request).outcome, RunOutcome::kFinished);
}

TEST_F(ResumeTest, output_evaluation_and_a_longer_run_never_refuse) {
  stopped_run();
  const RunResult result = train(tiny_.request({"training.max_steps=10", "output.checkpoint_every=1",
                                                "output.keep_checkpoints=5", "evaluation.every=3"}),
                                 &observer_);
  EXPECT_EQ(result.outcome, RunOutcome::kFinished);
  EXPECT_EQ(result.steps, 10);
  EXPECT_EQ(observer_.first_step, 6);
}

TEST_F(ResumeTest, a_changed_tokenizer_is_refused_by_name) {
  stopped_run();
  // Another file with the same pieces: a field that sentencepiece ignores at the end of the message.
  const fs::path path = tiny_.base_model() / "tokenizer.model";
  std::ofstream(path, std::ios::binary | std::ios::app) << std::string("\xc2\x3e\x01x", 4);
  EXPECT_THAT(error_of(tiny_.request(kEight), ErrorKind::kCheckpoint), HasSubstr("the tokenizer: SHA-256 was"));
}

TEST_F(ResumeTest, a_named_checkpoint_takes_the_run_back_and_supersedes_what_came_after) {
  const auto wanted = uninterrupted();
  TrainRequest request = stopped_run();
  request.resume = ResumeMode::kFolder;
  request.resume_folder = tiny_.run_folder() / "checkpoint-4/";
  EXPECT_EQ(train(request, &observer_).outcome, RunOutcome::kFinished);
  EXPECT_EQ(observer_.first_step, 4);
  EXPECT_EQ(digests_of_results(tiny_.run_folder()), wanted);
  request.resume_folder = tiny_.run_folder() / "checkpoint-5";
  EXPECT_THAT(error_of(request, ErrorKind::kCheckpoint), HasSubstr("checkpoint-5"));
}

// What the files of a run folder say; run.lock names the process.
std::map<std::string, std::string> texts_of(const fs::path& folder) {
  std::map<std::string, std::string> texts;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && name != "run.lock") texts[name] = read_file(entry.path());
  }
  return texts;
}

TEST_F(ResumeTest, a_finished_run_is_finished_until_another_start_has_something_new) {
  struct FailAtTheStart : RunObserver {
    void on_start(int64_t, int64_t) override { throw Error(ErrorKind::kIo, "the machine goes down"); }
  };
  TrainRequest request = tiny_.request(kEight);
  ASSERT_EQ(train(request).outcome, RunOutcome::kFinished);
  const std::map<std::string, std::string> before = texts_of(tiny_.run_folder());
  ASSERT_TRUE(before.contains("completed.json"));
  request.resume = ResumeMode::kFolder;
  for (const char* name : {"checkpoint-8", "checkpoint-6"}) {
    request.resume_folder = tiny_.run_folder() / name;
    FailAtTheStart failing;
    EXPECT_THROW(run_training(request, real_file_system(), {&failing}), Error);
    EXPECT_EQ(texts_of(tiny_.run_folder()), before) << name;
  }
  request.resume_folder = tiny_.run_folder() / "checkpoint-8";
  EXPECT_EQ(train(request).outcome, RunOutcome::kFinished);
  EXPECT_EQ(texts_of(tiny_.run_folder()), before);
}

TEST_F(ResumeTest, a_run_taken_back_changes_nothing_before_a_step_is_done) {
  struct FailAtTheStart : RunObserver {
    void on_start(int64_t, int64_t) override { throw Error(ErrorKind::kIo, "the machine goes down"); }
  };
  const auto wanted = uninterrupted();
  TrainRequest request = stopped_run();
  const std::map<std::string, std::string> before = texts_of(tiny_.run_folder());
  request.resume = ResumeMode::kFolder;
  request.resume_folder = tiny_.run_folder() / "checkpoint-4";
  FailAtTheStart failing;
  EXPECT_THROW(run_training(request, real_file_system(), {&failing}), Error);
  EXPECT_TRUE(verify_checkpoint(tiny_.run_folder() / "checkpoint-6").manifest);
  EXPECT_EQ(texts_of(tiny_.run_folder()), before);
  request.resume = ResumeMode::kAuto;
  EXPECT_EQ(train(request, &observer_).outcome, RunOutcome::kFinished);
  EXPECT_EQ(observer_.first_step, 6);
  EXPECT_EQ(digests_of_results(tiny_.run_folder()), wanted);
}

// A finished run too: the end of it that is on the disk is no longer its end.
TEST_F(ResumeTest, a_run_taken_back_and_killed_after_a_step_is_continued_from_where_it_was_taken_back_to) {
  struct FailInFirstStep : RunObserver {
    void on_step(const StepRecord&) override { throw Error(ErrorKind::kIo, "the machine goes down"); }
  };
  const Assignments assignments = kEight + Assignments{"output.keep_checkpoints=5"};
  TrainRequest other = tiny_.request(assignments, "uninterrupted");
  other.place.id = "run";
  ASSERT_EQ(train(other).outcome, RunOutcome::kFinished);
  TrainRequest request = tiny_.request(assignments);
  ASSERT_EQ(train(request).outcome, RunOutcome::kFinished);
  request.resume = ResumeMode::kFolder;
  request.resume_folder = tiny_.run_folder() / "checkpoint-4";
  FailInFirstStep failing;
  EXPECT_THROW(run_training(request, real_file_system(), {&failing}), Error);
  EXPECT_FALSE(fs::exists(tiny_.run_folder() / "checkpoint-6"));
  request.resume = ResumeMode::kAuto;
  EXPECT_EQ(train(request, &observer_).outcome, RunOutcome::kFinished);
  EXPECT_EQ(observer_.first_step, 4);
  EXPECT_EQ(digests_of_results(tiny_.run_folder()), digests_of_results(tiny_.run_folder("uninterrupted")));
  EXPECT_EQ(lasting_metrics(tiny_.run_folder()), lasting_metrics(tiny_.run_folder("uninterrupted")));
}

TEST_F(ResumeTest, evaluations_on_other_rows_do_not_choose_the_best_checkpoint) {
  const fs::path validation = tiny_.files().write("validation.jsonl", make_rows(3));
  const Assignments assignments = kEight + Assignments{"dataset.validation_path=" + validation.string(),
                                                       "evaluation.every=2", "evaluation.keep_best=true"};
  StopAfter stopper(6);
  ASSERT_EQ(train(tiny_.request(assignments), &stopper).outcome, RunOutcome::kStopped);
  tiny_.files().write("validation.jsonl", make_rows(4));
  EXPECT_EQ(train(tiny_.request(assignments), &observer_).outcome, RunOutcome::kFinished);
  EXPECT_THAT(observer_.warnings, Contains(HasSubstr("the search for the best begins anew")));
}

TEST_F(ResumeTest, the_first_evaluations_of_a_run_are_no_others_than_before) {
  stopped_run();
  const fs::path validation = tiny_.files().write("validation.jsonl", make_rows(3));
  EXPECT_EQ(
      train(tiny_.request(kEight + Assignments{"dataset.validation_path=" + validation.string()}), &observer_).outcome,
      RunOutcome::kFinished);
  EXPECT_THAT(observer_.warnings, ::testing::Not(Contains(HasSubstr("begins anew"))));
}

TEST_F(ResumeTest, a_run_may_start_from_another_run_s_checkpoint) {
  stopped_run();
  TrainRequest request = tiny_.request(kEight, "second");
  request.resume = ResumeMode::kFolder;
  request.resume_folder = tiny_.run_folder() / "checkpoint-6";
  EXPECT_EQ(train(request, &observer_).outcome, RunOutcome::kFinished);
  EXPECT_EQ(observer_.first_step, 6);
  EXPECT_FALSE(fs::exists(tiny_.run_folder("run") / "final_model"));
}

TEST_F(ResumeTest, never_refuses_a_folder_with_checkpoints) {
  TrainRequest request = stopped_run();
  request.resume = ResumeMode::kNever;
  EXPECT_THAT(error_of(request, ErrorKind::kUsage), HasSubstr("--resume never"));
}

TEST_F(ResumeTest, another_number_of_threads_is_a_warning) {
  const TrainRequest request = stopped_run();
  at::set_num_threads(2);
  EXPECT_EQ(train(request, &observer_).outcome, RunOutcome::kFinished);
  EXPECT_THAT(observer_.warnings, Contains(HasSubstr("the number of threads was 1 and is 2")));
}

TEST_F(ResumeTest, under_deterministic_another_number_of_threads_is_refused) {
  const Assignments assignments = kEight + Assignments{"training.deterministic=true"};
  StopAfter stopper(6);
  ASSERT_EQ(train(tiny_.request(assignments), &stopper).outcome, RunOutcome::kStopped);
  at::set_num_threads(2);
  EXPECT_THAT(error_of(tiny_.request(assignments), ErrorKind::kCheckpoint),
              HasSubstr("the number of threads was 1 and is 2"));
  at::set_num_threads(1);
  EXPECT_EQ(train(tiny_.request(assignments)).outcome, RunOutcome::kFinished);
}

TEST_F(ResumeTest, early_stopping_continues_its_count) {
  const Assignments assignments = {"dataset.validation_path=" + tiny_.data().string(),
                                   "training.learning_rate=1",
                                   "training.max_steps=40",
                                   "training.warmup_steps=0",
                                   "evaluation.every=1",
                                   "evaluation.early_stopping_patience=2",
                                   "output.checkpoint_every=0"};
  TrainRequest whole = tiny_.request(assignments, "whole");
  const RunResult wanted = train(whole);
  ASSERT_EQ(wanted.outcome, RunOutcome::kEarlyStopped);
  ASSERT_LT(wanted.steps, 40);
  TrainRequest request = tiny_.request(assignments);
  request.place.id = "whole";
  StopAfter stopper(wanted.steps - 1);  // one bad evaluation is on record
  ASSERT_EQ(train(request, &stopper).outcome, RunOutcome::kStopped);
  const RunResult result = train(request);
  EXPECT_EQ(result.outcome, RunOutcome::kEarlyStopped);
  EXPECT_EQ(result.steps, wanted.steps);
  EXPECT_EQ(end_of(request.place.folder, wanted.steps), end_of(whole.place.folder, wanted.steps));
}

// Four steps with a checkpoint after each, with some calls of the file system failing: then the same command again.
class FileFaultTest : public ::testing::TestWithParam<FaultKind> {};

TEST_P(FileFaultTest, whatever_call_it_strikes_the_same_command_finishes_with_the_same_bytes) {
  const TinyRun tiny;
  const Assignments assignments = {"training.max_steps=4", "output.checkpoint_every=1", "output.keep_checkpoints=2",
                                   "dataset.validation_fraction=0.3", "evaluation.every=2"};
  FailingFileSystem counting;
  TrainRequest whole = tiny.request(assignments, "whole");
  train(whole, nullptr, counting);
  const auto wanted = digests_of_results(whole.place.folder);
  const auto wanted_metrics = lasting_metrics(whole.place.folder);
  const auto calls = static_cast<int64_t>(counting.calls().size());
  ASSERT_GT(calls, 100);
  int struck = 0;
  for (int64_t call = 0; call < calls; call += 17) {
    TrainRequest request = tiny.request(assignments, "call-" + std::to_string(call));
    request.place.id = "whole";
    FailingFileSystem failing({.call = call, .kind = GetParam(), .error_number = 28, .written_fraction = 0.5});
    RecordingObserver observer;
    try {
      train(request, &observer, failing);
      ADD_FAILURE() << "call " << call << " failed and the run says that it finished";
    } catch (const SimulatedCrash&) {
      ++struck;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo) << error.what();
      ++struck;
    }
    const int64_t saved = static_cast<int64_t>(observer.checkpoints.size());
    RecordingObserver second;
    const RunResult result = train(request, &second);
    if (result.outcome != RunOutcome::kAlreadyFinished) {
      EXPECT_GE(second.first_step, saved) << "call " << call << " lost an announced checkpoint";
    }
    EXPECT_EQ(digests_of_results(request.place.folder), wanted) << "call " << call;
    EXPECT_EQ(lasting_metrics(request.place.folder), wanted_metrics) << "call " << call;
    fs::remove_all(request.place.folder);
  }
  EXPECT_GT(struck, 20);
}

INSTANTIATE_TEST_SUITE_P(all, FileFaultTest, ::testing::Values(FaultKind::kCrash, FaultKind::kFromNowOn));

}  // namespace
}  // namespace gemma_sft
