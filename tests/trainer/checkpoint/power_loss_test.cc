// R4: the power fails at a random moment of a run's file operations. Whatever part of the unsynced bytes and names came
// to the disk: the checkpoint announced last verifies and holds what was saved, and so do the metrics up to its step.
// Here with small contents and all that can happen to a run folder; training_faults_test does the same with a training.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <random>

#include "data/files/safetensors.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/power_cut.h"
#include "tests/testing/suite_count.h"
#include "tests/testing/system_calls.h"
#include "tests/testing/temp_dir.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/run/run_directory.h"
#include "trainer/run/run_log.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

using Contents = std::map<std::string, FileDigest>;

// As Checkpointer saves: a checkpoint of one tensor of `weights`, whose size is a multiple of four. `on_contents` is
// told what it holds before it becomes visible.
void save_checkpoint(FileSystem& files, CheckpointFolders& folders, int64_t step, const std::string& weights,
                     const std::function<void(const Contents&)>& on_contents) {
  const fs::path temporary = folders.begin(step, 1 << 14);
  const auto elements = static_cast<int64_t>(weights.size() / 4);
  const WrittenFile written = write_safetensors(files, temporary / "model.safetensors",
                                                {{"w", TensorDtype::kF32, {elements}, [&] { return weights.data(); }}});
  const Contents contents = {{"model.safetensors", {written.bytes, written.sha256}}};
  on_contents(contents);
  folders.publish(temporary, step, contents);
}

// Starts, saves, crashes, restarts, is taken back: every call of it is in the journal, with each announcement as a note
// of its step. So does a start that goes on from a checkpoint; one that is taken back, before it removes what came
// later.
class Journal {
 public:
  Journal(const fs::path& folder, uint64_t seed) : folder_(folder), random_(seed), keep_(1 + pick(2)) {
    WatchedCalls watched(folder_);
    const int64_t starts = 1 + pick(3);
    for (int64_t i = 0; i < starts; ++i) {
      FailingFileSystem files({.call = pick(2) == 0 ? -1 : pick(80), .kind = FaultKind::kCrash});
      try {
        run_process(watched, files);
      } catch (const SimulatedCrash&) {
      }
    }
    calls_ = watched.calls();
  }

  const std::vector<SystemCall>& calls() const { return calls_; }

  // What is lost in a folder that a power cut left, when `announced` was the last announcement; empty: nothing.
  std::string find_loss(const fs::path& left, std::optional<int64_t> announced) const {
    CheckpointFolders folders(left, "r", keep_, real_file_system());
    folders.open();
    if (announced && !folders.steps().contains(*announced)) {
      std::string reasons;
      for (const CheckpointVerdict& verdict : folders.rejected()) reasons += "; " + verdict.problem;
      return "checkpoint " + std::to_string(*announced) + ", which was announced, is not there" + reasons;
    }
    if (!folders.rejected().empty()) return "a visible checkpoint is not complete: " + folders.rejected()[0].problem;
    for (const int64_t step : folders.steps()) {
      const CheckpointVerdict verdict = verify_checkpoint(folders.folder(step));
      const auto& saved = saved_.at(step);
      if (std::find(saved.begin(), saved.end(), verdict.manifest->files) == saved.end()) {
        return "checkpoint " + std::to_string(step) + " does not hold what was saved";
      }
    }
    if (folders.steps().empty()) return "";
    const int64_t newest = *folders.steps().rbegin();  // where a resume goes on
    if (!fs::exists(left / "metrics.jsonl")) return "metrics.jsonl is not there";
    MetricsFile(left, real_file_system()).truncate_after(newest);
    const std::string text = read_file(left / "metrics.jsonl");
    if (std::count(text.begin(), text.end(), '\n') < newest) {
      return "metrics.jsonl lost rows of steps up to " + std::to_string(newest);
    }
    return "";
  }

 private:
  int64_t pick(int64_t below) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(below)); }

  // The order is that of TrainingLoop.
  void run_process(WatchedCalls& watched, FileSystem& files) {
    const RunLock lock(folder_, files);
    MetricsFile metrics(folder_, files);
    RunLog log(folder_, files);
    CheckpointFolders folders(folder_, "r", keep_, files);
    folders.open();
    int64_t step = 0;
    if (!folders.steps().empty()) step = pick(3) == 0 ? *folders.steps().begin() : *folders.steps().rbegin();
    const auto is_taken_back = [&] { return !folders.steps().empty() && *folders.steps().rbegin() > step; };
    const auto leave_the_old_future = [&] {
      if (!is_taken_back()) return;
      watched.note(std::to_string(step));
      folders.remove_after(step);
      metrics.truncate_after(step);
    };
    write_file_durably(files, folder_ / "config.yaml", "seed: " + std::to_string(pick(3)) + "\n");
    if (!is_taken_back()) {
      metrics.truncate_after(step);
      if (step > 0) {
        watched.note(std::to_string(step));
        folders.rotate(step, std::nullopt);
      }
    }
    if (step > 0 && pick(3) == 0) {  // the same step, other content
      leave_the_old_future();
      save(watched, files, folders, metrics, step);
    }
    const int64_t saves = pick(4);
    for (int64_t i = 0; i < saves; ++i) {
      const int64_t steps = 1 + pick(3);
      for (int64_t k = 0; k < steps; ++k) {
        leave_the_old_future();
        metrics.on_step({.step = ++step, .loss = 0.5});
      }
      log.on_note("step " + std::to_string(step));
      save(watched, files, folders, metrics, step);
    }
  }

  // With what TrainingLoop does around it.
  void save(WatchedCalls& watched, FileSystem& files, CheckpointFolders& folders, MetricsFile& metrics, int64_t step) {
    metrics.sync();
    const std::string weights(static_cast<size_t>(4 * (1 + pick(3000))), static_cast<char>('a' + pick(26)));
    save_checkpoint(files, folders, step, weights, [&](const Contents& contents) { saved_[step].push_back(contents); });
    watched.note(std::to_string(step));
    folders.rotate(step, std::nullopt);
  }

  fs::path folder_;
  std::mt19937_64 random_;
  int64_t keep_;
  std::map<int64_t, std::vector<Contents>> saved_;
  std::vector<SystemCall> calls_;
};

TEST(PowerLoss, what_was_announced_is_there_whatever_came_to_the_disk) {
  SuiteCount count("R4 power cuts of a run folder");
  const int64_t journals = case_count(20, 100), cuts = case_count(10, 20);
  for (int64_t i = 0; i < journals; ++i) {
    const uint64_t seed = suite_seed() * 1'000'003 + static_cast<uint64_t>(i);
    const TempDir dir{memory_folder()};
    fs::create_directory(dir / "run");
    ModelDisk disk(dir / "run");
    const Journal journal(dir / "run", seed);
    std::mt19937_64 random(seed);
    std::vector<size_t> moments;
    for (int64_t cut = 0; cut < cuts; ++cut) moments.push_back(random() % (journal.calls().size() + 1));
    std::sort(moments.begin(), moments.end());
    size_t done = 0;
    std::optional<int64_t> announced;
    for (const size_t moment : moments) {
      for (; done < moment; ++done) {
        const SystemCall& call = journal.calls()[done];
        disk.apply(call);
        if (call.name == "note") announced = std::stoll(call.path.string());
      }
      const PowerCut cut = random_power_cut(random);
      disk.write_after(cut, random, dir / "left");
      const std::string loss = journal.find_loss(dir / "left", announced);
      EXPECT_TRUE(count.add(loss.empty())) << "journal " << i << " of seed " << suite_seed() << ", after call "
                                           << moment << ", " << describe(cut) << ": " << loss;
      fs::remove_all(dir / "left");
    }
  }
}

// What clears up after the first accident must not make a second one worse: the program ends at any call of saving a
// step again, starts anew, and then the power fails.
TEST(PowerLoss, a_checkpoint_that_was_being_replaced_survives_the_cut_after_the_restart) {
  SuiteCount count("R4 power cuts after a crash amid a replacement");
  std::mt19937_64 random(suite_seed());
  const int64_t cuts = case_count(4, 40);
  for (int64_t crash = 0;; ++crash) {
    const TempDir dir{memory_folder()};
    const fs::path run = dir / "run";
    fs::create_directory(run);
    ModelDisk disk(run);
    std::vector<Contents> saved;
    const auto on_contents = [&](const Contents& contents) { saved.push_back(contents); };
    WatchedCalls watched(run);
    CheckpointFolders first(run, "r", 1, real_file_system());
    save_checkpoint(real_file_system(), first, 1, "aaaa", on_contents);
    bool crashed = false;
    try {
      FailingFileSystem files({.call = crash, .kind = FaultKind::kCrash});
      CheckpointFolders again(run, "r", 1, files);
      again.open();
      save_checkpoint(files, again, 1, "bbbbbbbb", on_contents);
    } catch (const SimulatedCrash&) {
      crashed = true;
    }
    const size_t before_restart = watched.calls().size();
    CheckpointFolders(run, "r", 1, real_file_system()).open();

    const std::vector<SystemCall> calls = watched.calls();
    for (size_t done = 0; done <= calls.size(); ++done) {
      for (int64_t i = 0; done >= before_restart && i < cuts; ++i) {
        const PowerCut cut = random_power_cut(random);
        disk.write_after(cut, random, dir / "left");
        CheckpointFolders folders(dir / "left", "r", 1, real_file_system());
        folders.open();
        const bool whole =
            folders.steps().contains(1) && folders.rejected().empty() &&
            std::find(saved.begin(), saved.end(), verify_checkpoint(folders.folder(1)).manifest->files) != saved.end();
        EXPECT_TRUE(count.add(whole)) << "seed " << suite_seed() << ", crash at call " << crash << ", cut after call "
                                      << done << ", " << describe(cut);
        fs::remove_all(dir / "left");
      }
      if (done < calls.size()) disk.apply(calls[done]);
    }
    if (!crashed) break;
  }
}

}  // namespace
}  // namespace gemma_sft
