// output.background_save: training goes on while a checkpoint is written, and nothing that is written or promised
// differs from a run that waits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "configs/error.h"
#include "tests/testing/hooked_file_system.h"
#include "tests/trainer/send_signal.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/background_saver.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/checkpoint/checkpoint_format.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kInBackground = "output.background_save=true";

bool is_weights_of(const fs::path& path, int64_t step) {
  return path.filename() == "model.safetensors" &&
         path.parent_path().filename().string().find("checkpoint-" + std::to_string(step)) != std::string::npos;
}

// Holds whoever creates a checkpoint's model.safetensors, until a step has been finished.
class Gate : public RunObserver {
 public:
  Gate(int64_t held_save, int64_t until_step) : held_save_(held_save), until_step_(until_step) {}

  void before_create(const fs::path& path) {
    if (!is_weights_of(path, held_save_)) return;
    std::unique_lock lock(mutex_);
    opened_in_time_ = changed_.wait_for(lock, std::chrono::seconds(60), [&] { return step_ >= until_step_; });
  }
  void on_step(const StepRecord& record) override {
    const std::lock_guard lock(mutex_);
    step_ = record.step;
    changed_.notify_all();
  }
  bool opened_in_time() const { return opened_in_time_; }

 private:
  int64_t held_save_, until_step_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t step_ = 0;
  std::atomic<bool> opened_in_time_ = false;
};

// Ends the run in its step 5.
struct Step5Thrower : RunObserver {
  void on_step(const StepRecord& record) override {
    if (record.step == 5) throw Error(ErrorKind::kNonFinite, "step 5 went wrong");
  }
};

class BackgroundSaveTest : public ::testing::Test {
 protected:
  RunResult train(std::vector<std::string> assignments, FileSystem& files = real_file_system(),
                  const std::vector<RunObserver*>& more = {}, const std::string& run = "run") {
    std::vector<RunObserver*> observers = {&observer_};
    observers.insert(observers.end(), more.begin(), more.end());
    TrainRequest request = tiny_.request(assignments, run);
    request.place.id = "one";  // it is in the checkpoints
    return run_training(request, files, observers);
  }
  // config.yaml says whether saves are in the background; manifest.json has its digest.
  std::map<std::string, std::string> results_of(const std::string& run) {
    auto digests = digests_of_results(tiny_.run_folder(run));
    std::erase_if(digests, [](const auto& entry) {
      return entry.first.ends_with("/config.yaml") || entry.first.ends_with("/manifest.json") ||
             entry.first.ends_with("/state.json");
    });
    return digests;
  }
  // While the save of step 4, which fails, is still under way.
  void expect_step_5_to_be_told(Step5Thrower& thrower) {
    Gate gate(4, 5);
    HookedFileSystem files([&](const fs::path& path) {
      gate.before_create(path);
      if (is_weights_of(path, 4)) throw file_error("creating", path, 28);
    });
    try {
      train({kInBackground}, files, {&gate, &thrower});
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "step 5 went wrong");
    }
  }
  std::string step_folder(int64_t step) {
    return (tiny_.run_folder() / ("checkpoint-" + std::to_string(step))).string();
  }

  TinyRun tiny_;
  RecordingObserver observer_;
};

TEST_F(BackgroundSaveTest, training_goes_on_while_a_checkpoint_is_written_and_the_files_are_the_same) {
  const std::vector<std::string> more = {"output.keep_checkpoints=100"};
  train(more, real_file_system(), {}, "waits");
  Gate gate(/*held_save=*/4, /*until_step=*/6);  // the save of step 6 waits for that of step 4
  HookedFileSystem files([&](const fs::path& path) { gate.before_create(path); });
  const RunResult result = train({more[0], kInBackground}, files, {&gate});
  EXPECT_EQ(result.outcome, RunOutcome::kFinished);
  EXPECT_TRUE(gate.opened_in_time()) << "step 6 was not taken while the checkpoint of step 4 was being written";
  EXPECT_EQ(results_of("run"), results_of("waits"));
  EXPECT_GT(results_of("run").size(), 9u * 3u);
  EXPECT_EQ(lasting_metrics(tiny_.run_folder("run")), lasting_metrics(tiny_.run_folder("waits")));
  EXPECT_THAT(observer_.warnings, IsEmpty());
  for (const CheckpointRecord& save : observer_.saves) EXPECT_LE(save.waited_seconds, save.seconds) << save.step;
}

TEST_F(BackgroundSaveTest, a_failure_ends_the_run_at_the_next_step_and_the_checkpoint_before_it_stays) {
  HookedFileSystem files([&](const fs::path& path) {
    if (is_weights_of(path, 4)) throw file_error("creating", path, 28);
  });
  std::string message;
  try {
    train({kInBackground}, files);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kIo);
    message = error.what();
  }
  EXPECT_THAT(message, HasSubstr("No space left on device"));
  EXPECT_THAT(message, HasSubstr("checkpoint-4"));
  ASSERT_FALSE(observer_.steps.empty());
  EXPECT_LE(observer_.steps.back().step, 6) << "found after step 5, or by the save of step 6 at the latest";
  EXPECT_THAT(observer_.checkpoints, ElementsAre(step_folder(2)));
  EXPECT_FALSE(fs::exists(step_folder(4)));

  observer_ = {};
  EXPECT_EQ(train({kInBackground}).outcome, RunOutcome::kFinished);
  EXPECT_EQ(observer_.first_step, 2);
}

TEST_F(BackgroundSaveTest, a_stop_signal_waits_for_what_is_being_written) {
  install_stop_signals();
  struct Stopper : RunObserver {
    void on_step(const StepRecord& record) override {
      if (record.step == 5) send_stop_signal(SIGTERM);
    }
  } stopper;
  Gate gate(4, 5);
  HookedFileSystem files([&](const fs::path& path) { gate.before_create(path); });
  const RunResult result = train({kInBackground, "output.keep_checkpoints=100"}, files, {&gate, &stopper});
  install_stop_signals();
  EXPECT_EQ(result.outcome, RunOutcome::kStopped);
  EXPECT_TRUE(gate.opened_in_time());
  EXPECT_THAT(observer_.checkpoints, ElementsAre(step_folder(2), step_folder(4), step_folder(5)));
}

TEST_F(BackgroundSaveTest, an_error_of_the_run_itself_leaves_the_checkpoint_whole_that_was_being_written) {
  struct Thrower : RunObserver {
    void on_step(const StepRecord& record) override {
      if (record.step == 5) throw Error(ErrorKind::kNonFinite, "step 5 went wrong");
    }
  } thrower;
  Gate gate(4, 5);
  HookedFileSystem files([&](const fs::path& path) { gate.before_create(path); });
  EXPECT_THROW(train({kInBackground}, files, {&gate, &thrower}), Error);
  EXPECT_TRUE(gate.opened_in_time());
  EXPECT_THAT(observer_.checkpoints, ElementsAre(step_folder(2), step_folder(4)));
  EXPECT_TRUE(fs::exists(step_folder(4)));
}

// A step that failed is over: the watch on it must not end the process while a save takes longer than a step may.
TEST_F(BackgroundSaveTest, an_error_in_a_step_ends_the_watch_on_it_before_the_save_is_waited_for) {
  struct Vandal : RunObserver {
    const TinyRun* tiny = nullptr;
    void on_step(const StepRecord& record) override {
      if (record.step == 6) tiny->files().write("data.jsonl", "");  // only what was read ahead is left to train on
    }
  } vandal;
  vandal.tiny = &tiny_;
  std::atomic<int> stalls = 0;
  HookedFileSystem files([&](const fs::path& path) {
    if (!is_weights_of(path, 6)) return;
    for (int i = 0; i < 300 && stalls == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  });
  TrainRequest request = tiny_.request(
      {kInBackground, "output.checkpoint_every=6", "training.step_timeout=1", "training.preflight=false"});
  request.on_stall = [&](const std::string&) { ++stalls; };
  try {
    run_training(request, files, {&observer_, &vandal});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("data.jsonl"));
  }
  EXPECT_EQ(stalls, 0);
  EXPECT_TRUE(verify_checkpoint(step_folder(6)).manifest);
}

TEST_F(BackgroundSaveTest, an_error_of_the_run_itself_is_not_replaced_where_not_even_a_warning_can_be_given) {
  struct MuteThrower : Step5Thrower {
    void on_warning(const std::string&) override { throw Error(ErrorKind::kIo, "the log cannot be written"); }
  } thrower;
  expect_step_5_to_be_told(thrower);
}

TEST_F(BackgroundSaveTest, an_error_of_the_run_itself_is_told_and_the_failed_save_is_a_warning) {
  Step5Thrower thrower;
  expect_step_5_to_be_told(thrower);
  ASSERT_EQ(observer_.warnings.size(), 1u);
  EXPECT_THAT(observer_.warnings[0], HasSubstr("No space left on device"));
}

// A best checkpoint that is not on disk yet must not cost the one before it.
TEST_F(BackgroundSaveTest, the_best_checkpoint_on_disk_is_kept_while_a_better_one_is_being_written) {
  const std::vector<std::string> more = {"dataset.validation_fraction=0.3", "evaluation.every=3",
                                         "evaluation.keep_best=true", "output.keep_checkpoints=1",
                                         "output.checkpoint_every=1"};
  std::vector<std::string> in_background = more;
  in_background.push_back(kInBackground);
  std::atomic<int> missing = 0;
  std::atomic<int> looked = 0;
  // Whenever a save begins, the newest one's own best checkpoint has to be there.
  HookedFileSystem files([&](const fs::path& path) {
    if (path.filename() != "model.safetensors" || path.string().find("checkpoint") == std::string::npos) return;
    int64_t newest = 0;
    for (const auto& entry : fs::directory_iterator(tiny_.run_folder())) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with("checkpoint-")) newest = std::max(newest, static_cast<int64_t>(std::stoll(name.substr(11))));
    }
    if (newest == 0) return;
    ++looked;
    const std::string state = read_file(fs::path(step_folder(newest)) / "state.json");
    const size_t best = state.find("\"best\"");
    const size_t step = state.find("\"step\":", best);
    if (best == std::string::npos || step == std::string::npos) return;
    if (!fs::exists(step_folder(std::stoll(state.substr(step + 7))))) ++missing;
  });
  train(in_background, files);
  EXPECT_GT(looked, 5);
  EXPECT_EQ(missing, 0);
  train(more, real_file_system(), {}, "waits");
  EXPECT_EQ(results_of("run"), results_of("waits"));
}

TEST_F(BackgroundSaveTest, without_room_for_a_copy_nothing_is_begun) {
  CheckpointFolders folders(tiny_.run_folder(), "one", 2, real_file_system());
  const RunOrigin origin;
  Checkpointer checkpointer(folders, origin, real_file_system());
  const Gemma model = load_tiny_model(tiny_);
  RunTensors tensors;
  int64_t bytes = 0;
  for (const Parameter& parameter : model.trainable_parameters()) {
    tensors.weights.push_back({parameter.name, parameter.tensor});
    bytes += static_cast<int64_t>(parameter.tensor.nbytes());
  }
  constexpr int64_t kReserve = int64_t{1} << 30;
  int64_t free = bytes + kReserve - 1;
  BackgroundSaver saver(checkpointer, [&] { return free; });
  EXPECT_FALSE(saver.begin({.step = 1}, tensors));
  EXPECT_EQ(saver.step(), std::nullopt);
  EXPECT_FALSE(saver.wait().has_value());
  ++free;
  EXPECT_TRUE(saver.begin({.step = 1}, tensors));
  EXPECT_EQ(saver.step(), 1);
  EXPECT_EQ(saver.wait()->folder, folders.folder(1).string());
  free = 0;  // the room of the first copy is kept
  EXPECT_TRUE(saver.begin({.step = 2}, tensors));
  EXPECT_EQ(saver.wait()->step, 2);
}

}  // namespace
}  // namespace gemma_sft
