// R8: random histories of a run folder. Processes start, are taken back, save, rotate, fail and crash at any call of
// the file layer; strangers put folders of theirs beside the run's and clocks go wrong. Whatever happened: the
// checkpoints that must be there are there and hold what was saved, and nothing is deleted that this run did not make.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <random>
#include <set>
#include <sstream>

#include "configs/error.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/suite_count.h"
#include "tests/testing/temp_dir.h"
#include "tests/trainer/checkpoint/saved_checkpoints.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

// What may be in a run folder by the rules, kept beside what is.
class History {
 public:
  explicit History(uint64_t seed) : random_(seed), keep_(1 + pick(3)) {}

  // The whole history; the first thing that is wrong, or empty.
  std::string run() {
    const int64_t processes = 2 + pick(4);
    for (int64_t i = 0; i < processes; ++i) {
      if (pick(2) == 0) plant_something_foreign();
      scramble_times();
      const std::string problem = run_process();
      if (!problem.empty()) return problem + "\n" + log_.str();
    }
    return "";
  }

 private:
  int64_t pick(int64_t below) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(below)); }

  // One start of the program: it opens the folder, continues somewhere, saves and rotates until it ends or breaks.
  std::string run_process() {
    const FaultKind kinds[] = {FaultKind::kOnce, FaultKind::kFromNowOn, FaultKind::kCrash};
    const Fault fault{.call = pick(2) == 0 ? -1 : pick(90), .kind = kinds[pick(3)], .written_fraction = 0.5};
    FailingFileSystem files(fault);
    CheckpointFolders folders(dir_.path(), "r", keep_, files);
    log_ << "process, keep " << keep_ << ", fault at call " << fault.call << " of kind " << static_cast<int>(fault.kind)
         << "\n";
    bool ended_well = false;
    try {
      folders.open();
      continue_somewhere(folders);
      const int64_t saves = pick(5);
      for (int64_t i = 0; i < saves; ++i) save(folders, files);
      ended_well = true;
    } catch (const SimulatedCrash&) {
      log_ << "crashed\n";
    } catch (const Error& error) {
      log_ << error.what() << "\n";
      if (error.kind() != ErrorKind::kIo) return "an unexpected error";
    }
    if (ended_well && files.has_failed()) return "a call failed and nobody said so";
    const std::string disorder = find_disorder(files.calls());
    return disorder.empty() ? find_problem() : disorder;
  }

  void continue_somewhere(CheckpointFolders& folders) {
    step_ = 0;
    if (folders.steps().empty()) return;
    step_ = *folders.steps().rbegin();
    if (pick(4) == 0) {  // the user takes the run back: nothing is deleted before the first new save
      step_ = *std::next(folders.steps().begin(), pick(static_cast<int64_t>(folders.steps().size())));
      log_ << "taken back to " << step_ << "\n";
      return;
    }
    log_ << "continues from " << step_ << "\n";
    must_ = kept_of(folders.steps(), step_);
    folders.rotate(step_, best_);
    may_ = must_;
  }

  void save(CheckpointFolders& folders, FileSystem& files) {
    // Now and then the same step again with other content, as a run with another output setting does.
    if (step_ == 0 || pick(8) != 0) step_ += 1 + pick(3);
    const std::string content = std::to_string(step_) + " " + std::to_string(pick(3));
    log_ << "saves " << content << "\n";
    contents_[step_].insert(content);
    may_.insert(step_);
    save_checkpoint(folders, step_, files, content);
    contents_[step_] = {content};
    broken_.erase(step_);
    if (pick(4) == 0) best_ = step_;
    std::set<int64_t> there = may_;
    must_ = kept_of(there, step_);
    log_ << "announced " << step_ << "\n";
    folders.rotate(step_, best_);
    may_ = must_;
  }

  // The newest `keep` up to `newest`, and the best one.
  std::set<int64_t> kept_of(const std::set<int64_t>& steps, int64_t newest) const {
    std::set<int64_t> kept;
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
      if (*step > newest) continue;
      const bool is_there = complete_now().contains(*step);
      if (!is_there) continue;
      if (static_cast<int64_t>(kept.size()) < keep_) kept.insert(*step);
    }
    if (best_ && *best_ <= newest && steps.contains(*best_) && complete_now().contains(*best_)) kept.insert(*best_);
    return kept;
  }

  std::set<int64_t> complete_now() const {
    const std::vector<int64_t> steps = complete_steps(dir_.path());
    return {steps.begin(), steps.end()};
  }

  void plant_something_foreign() {
    const int64_t step = 1 + pick(30);
    const std::string name = "checkpoint-" + std::to_string(step);
    switch (pick(5)) {
      case 0: plant("my-" + name + "-backup/model.safetensors", "mine"); break;
      case 1: plant(name + ".bak/manifest.json", "{}"); break;
      case 2: plant("checkpoint-0" + std::to_string(step) + "/notes.txt", "not a name of ours"); break;
      case 3:  // a higher step of another run
        if (fs::exists(dir_ / name)) break;
        {
          CheckpointFolders other(dir_.path(), "other", 99, real_file_system());
          save_checkpoint(other, step, real_file_system(), "of another run");
          for (const char* file : {"/model.safetensors", "/manifest.json"}) {
            foreign_[name + file] = read_file(dir_ / (name + file));
          }
        }
        break;
      default:  // a checkpoint that does not verify
        if (fs::exists(dir_ / name)) break;
        dir_.write(name + "/model.safetensors", "half");
        broken_.insert(step);
        break;
    }
  }

  void plant(const std::string& name, const std::string& content) {
    dir_.write(name, content);
    foreign_[name] = content;
  }

  // Restored backups, clocks a year ahead or behind.
  void scramble_times() {
    for (const fs::directory_entry& entry : fs::directory_iterator(dir_.path())) {
      fs::last_write_time(entry.path(), fs::file_time_type::clock::now() + std::chrono::hours(pick(17'520) - 8'760));
    }
  }

  // A visible checkpoint is never deleted under its name, and none is taken away while a newer one that was renamed
  // into place is not synced.
  std::string find_disorder(const std::vector<FileCallRecord>& calls) const {
    bool unsynced_name = false;
    for (const FileCallRecord& call : calls) {
      const std::string name = call.path.filename().string();
      if (call.call == FileCall::kRemoveTree && step_of_checkpoint_name(name)) return name + " deleted under its name";
      if (call.call == FileCall::kRename && step_of_checkpoint_name(name)) unsynced_name = true;
      if (call.call == FileCall::kSyncDirectory && call.path == dir_.path()) unsynced_name = false;
      if (call.call == FileCall::kRename && name.starts_with(".") && unsynced_name) {
        return name + " renamed away before the new checkpoint was synced";
      }
    }
    return "";
  }

  // Where it was, or set aside with its folder to make room for a checkpoint.
  bool is_kept(const std::string& name, const std::string& content) const {
    const size_t slash = name.find('/');
    for (const std::string& suffix : {std::string(), std::string(".aside-1"), std::string(".aside-2")}) {
      const fs::path path = dir_ / (name.substr(0, slash) + suffix + name.substr(slash));
      if (fs::exists(path) && read_file(path) == content) return true;
    }
    return false;
  }

  // What is wrong with what is on the disk, as the next start finds it.
  std::string find_problem() {
    for (const auto& [name, content] : foreign_) {
      if (!is_kept(name, content)) return name + " of somebody else is not as it was";
    }
    for (const int64_t step : broken_) {
      const fs::path file = dir_ / ("checkpoint-" + std::to_string(step) + "/model.safetensors");
      if (!contents_.contains(step) && !fs::exists(file)) return file.string() + " was deleted without a save there";
    }
    CheckpointFolders next(dir_.path(), "r", keep_, real_file_system());
    next.open();
    for (const fs::directory_entry& entry : fs::directory_iterator(dir_.path())) {
      if (entry.path().filename().string().starts_with(".")) return entry.path().string() + " is left over";
    }
    for (const int64_t step : must_) {
      if (!next.steps().contains(step)) return "checkpoint " + std::to_string(step) + " must be there and is not";
    }
    for (const int64_t step : next.steps()) {
      if (!may_.contains(step)) return "checkpoint " + std::to_string(step) + " must not be there any more";
      const std::string content = read_file(next.folder(step) / "model.safetensors");
      if (!contents_.at(step).contains(content)) return "checkpoint " + std::to_string(step) + " holds " + content;
    }
    return "";
  }

  TempDir dir_{memory_folder()};
  std::mt19937_64 random_;
  int64_t keep_;
  int64_t step_ = 0;
  std::optional<int64_t> best_;
  std::set<int64_t> must_, may_;                       // checkpoints of this run that have to, or can, be there
  std::map<int64_t, std::set<std::string>> contents_;  // what a checkpoint of that step can hold
  std::map<std::string, std::string> foreign_;         // files of others
  std::set<int64_t> broken_;                           // steps where a folder lies that does not verify
  std::ostringstream log_;
};

TEST(Rotation, random_histories_keep_what_must_be_kept_and_delete_nothing_of_others) {
  SuiteCount count("R8 random rotation histories");
  const int64_t histories = case_count(400, 10'000);
  for (int64_t i = 0; i < histories; ++i) {
    const uint64_t seed = suite_seed() * 1'000'003 + static_cast<uint64_t>(i);
    const std::string problem = History(seed).run();
    ASSERT_TRUE(count.add(problem.empty())) << "history " << i << " of seed " << suite_seed() << ": " << problem;
  }
}

}  // namespace
}  // namespace gemma_sft
