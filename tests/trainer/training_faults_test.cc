// Whole training runs against faults below their run folder: SIGKILL at every system call (R3), power cuts (R4), every
// errno at every call and a disk that is really full (R5). Whatever struck: what was announced is there, and the same
// command ends with the bytes of a run that nothing happened to.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>
#include <system_error>

#include "configs/error.h"
#include "tests/testing/power_cut.h"
#include "tests/testing/suite_count.h"
#include "tests/trainer/tiny_run.h"
#include "tests/trainer/training_process.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/run_completion.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

using Assignments = std::vector<std::string>;

// Every which case of `all` is run; no multiple of `period`, in which the kinds of faults take turns.
int64_t stride_of(int64_t all, int64_t per_change, int64_t period) {
  const int64_t stride = case_count(std::max<int64_t>(1, all / per_change), 1);
  return stride > 1 && stride % period == 0 ? stride + 1 : stride;
}

class TrainingFaultsTest : public ::testing::Test {
 protected:
  TrainingFaultsTest() {
    whole_ = train_in_child(request("whole"));
    wanted_ = digests_of_results(folder("whole"));
    wanted_metrics_ = lasting_metrics(folder("whole"));
  }

  // Four steps, a checkpoint after each, the last two of which stay, an evaluation and the export. The name of a run is
  // the name of its folder alone: its id is in its checkpoints, which are compared.
  TrainRequest request(const std::string& name) const {
    TrainRequest made = tiny_.request(kAssignments, name);
    made.place.id = "run";
    return made;
  }
  // `--resume checkpoint-3` of a run that is finished: it is taken back by a step.
  TrainRequest taking_back(const std::string& name) const {
    TrainRequest made = request(name);
    made.resume = ResumeMode::kFolder;
    made.resume_folder = folder(name) / "checkpoint-3";
    return made;
  }
  fs::path folder(const std::string& name) const { return tiny_.run_folder(name); }

  // `make` gives the command of a run in the folder "killed", which is gone after each.
  void kill_at_every_call(const char* suite, int64_t calls, int64_t per_change,
                          const std::function<TrainRequest()>& make) const {
    SuiteCount count(suite);
    const CallAction actions[] = {CallAction::kKillBefore, CallAction::kKillHalfway, CallAction::kKillAfter};
    const int64_t all = 3 * calls;
    const int64_t stride = stride_of(all, per_change, 3);
    for (int64_t i = static_cast<int64_t>(suite_seed()) % stride; i < all; i += stride) {
      const CallFault fault{.call = i / 3, .action = actions[i % 3]};
      const TrainingProcess ended = train_in_child(make(), fault);
      std::string problem = ended.signal == SIGKILL ? "" : "it was not killed";
      if (problem.empty()) problem = find_loss("killed", ended);
      EXPECT_TRUE(count.add(problem.empty())) << "call " << fault.call << ", action " << i % 3 << ": " << problem;
      fs::remove_all(folder("killed"));
    }
  }

  // What is wrong after `ended` and a second start of the same command; empty: nothing.
  std::string find_loss(const std::string& name, const TrainingProcess& ended) const {
    for (const CheckpointVerdict& verdict : find_checkpoints(folder(name), "run")) {  // none where there is no folder
      if (!verdict.manifest) return "a visible checkpoint is not complete: " + verdict.problem;
    }
    const TrainingProcess again = train_in_child(request(name));
    if (again.exit_code != 0) return "the second start failed: " + again.error;
    if (!ended.announced.empty() && again.first_step >= 0 && again.first_step < ended.announced.back()) {
      return "continued from step " + std::to_string(again.first_step) + " although " +
             std::to_string(ended.announced.back()) + " was announced";
    }
    return find_difference(name);
  }

  // An error that was injected has to come out, in words that help; empty: it did.
  static std::string find_unreported(const TrainingProcess& ended, const CallFault& fault) {
    if (!ended.struck) return "the call did not come";
    if (ended.synced_again) return "an fsync that had failed was tried again";
    const std::string name = ended.faulty_call.substr(0, ended.faulty_call.find(' '));
    // Closing what was only read loses nothing, nor does making the folder that is there.
    if (ended.exit_code == 0) return name == "close" || ended.faulty_call == "mkdir failed" ? "" : "nobody said so";
    if (ended.exit_code != 1 || ended.error_kind != "io") return "ended in another way";
    for (const std::string& needed : {std::generic_category().message(fault.error_number), std::string("cannot "),
                                      ended.faulty_call.substr(ended.faulty_call.find(' ') + 1)}) {
      if (ended.error.find(needed) == std::string::npos) return "the message lacks \"" + needed + "\"";
    }
    const bool is_full = fault.error_number == ENOSPC || fault.error_number == EDQUOT;
    if (is_full && ended.error.find(" free") == std::string::npos) return "the message does not say how much is free";
    if (is_full && name == "write" && ended.error.find(" needed") == std::string::npos) {
      return "the message does not say how much is needed";
    }
    return "";
  }

  std::string find_difference(const std::string& name) const {
    if (digests_of_results(folder(name)) != wanted_) return "other results than without a fault";
    if (lasting_metrics(folder(name)) != wanted_metrics_) return "other metrics than without a fault";
    for (const fs::directory_entry& entry : fs::directory_iterator(folder(name))) {
      if (entry.path().filename().string().starts_with(".")) return entry.path().string() + " is left over";
    }
    return "";
  }

  // What a power cut took of what had been announced; empty: nothing. `saved`: the contents of every step.
  std::string find_loss_after_power_cut(const std::string& announced,
                                        const std::map<int64_t, std::map<std::string, FileDigest>>& saved) const {
    const TrainRequest asked = request("left");
    if (announced == "finished" && !find_completion(folder("left"), "run", asked.loaded.config)) {
      return "completed.json or the model that it names is not there";
    }
    if (announced == "finished") {  // with its SHA256SUMS, which completed.json does not name
      const std::map<std::string, std::string> left = digests_of_results(folder("left"));
      for (const auto& [name, sha256] : wanted_) {
        if (name.starts_with("final_model/") && (!left.contains(name) || left.at(name) != sha256))
          return name + " is lost";
      }
    }
    CheckpointFolders folders(folder("left"), "run", 2, real_file_system());
    folders.open();
    const int64_t step = announced.empty() ? 0 : announced == "finished" ? 4 : std::stoll(announced);
    if (step > 0 && !folders.steps().contains(step)) return "the checkpoint of step " + announced + " is not there";
    if (!folders.rejected().empty()) return "a visible checkpoint is not complete: " + folders.rejected()[0].problem;
    for (const int64_t there : folders.steps()) {
      if (verify_checkpoint(folders.folder(there)).manifest->files != saved.at(there)) {
        return "the checkpoint of step " + std::to_string(there) + " holds something else";
      }
    }
    if (!folders.steps().empty()) {  // the rows that a resume counts on
      const int64_t newest = *folders.steps().rbegin();
      if (!fs::exists(folder("left") / "metrics.jsonl")) return "metrics.jsonl is not there";
      const fs::path copy = folder("rows");
      fs::create_directory(copy);
      fs::copy_file(folder("left") / "metrics.jsonl", copy / "metrics.jsonl", fs::copy_options::overwrite_existing);
      MetricsFile(copy, real_file_system()).truncate_after(newest);
      const std::vector<std::string> rows = lasting_metrics(copy);
      if (rows.size() < static_cast<size_t>(newest) || !std::equal(rows.begin(), rows.end(), wanted_metrics_.begin())) {
        return "metrics.jsonl lost rows of steps up to " + std::to_string(newest);
      }
    }
    return "";
  }

  const Assignments kAssignments = {"training.max_steps=4", "output.checkpoint_every=1", "output.keep_checkpoints=2",
                                    "dataset.validation_fraction=0.3", "evaluation.every=2"};
  TinyRun tiny_;
  TrainingProcess whole_;
  std::map<std::string, std::string> wanted_;
  std::vector<std::string> wanted_metrics_;
};

TEST_F(TrainingFaultsTest, killed_at_any_system_call_the_same_command_finishes_with_the_same_bytes) {
  ASSERT_EQ(whole_.exit_code, 0) << whole_.error;
  ASSERT_GT(whole_.calls, 150);
  kill_at_every_call("R3 kill -9 at every system call of a run", whole_.calls, 45, [&] { return request("killed"); });
}

TEST_F(TrainingFaultsTest, killed_while_it_is_taken_back_the_run_still_finishes_with_the_same_bytes) {
  const auto take_back = [&](const std::string& name) {
    fs::copy(folder("whole"), folder(name), fs::copy_options::recursive);
    return taking_back(name);
  };
  const TrainingProcess back = train_in_child(take_back("back"));
  ASSERT_EQ(back.exit_code, 0) << back.error;
  ASSERT_EQ(back.first_step, 3);
  ASSERT_EQ(find_difference("back"), "");
  kill_at_every_call("R3 kill -9 at every system call of a run that is taken back", back.calls, 15,
                     [&] { return take_back("killed"); });
}

TEST_F(TrainingFaultsTest, an_error_of_any_system_call_is_reported_and_costs_nothing) {
  SuiteCount count("R5 every errno at every system call of a run");
  const int errors[] = {ENOSPC, EDQUOT, EIO, EROFS, EMFILE};
  const int64_t all = 5 * whole_.calls;
  const int64_t stride = stride_of(all, 40, 5);
  for (int64_t i = static_cast<int64_t>(suite_seed()) % stride; i < all; i += stride) {
    const CallFault fault{.call = i / 5, .action = CallAction::kFail, .error_number = errors[i % 5]};
    const TrainingProcess ended = train_in_child(request("failed"), fault);
    std::string problem = find_unreported(ended, fault);
    if (problem.empty()) problem = find_loss("failed", ended);
    EXPECT_TRUE(count.add(problem.empty())) << std::strerror(fault.error_number) << " at call " << fault.call << " ("
                                            << ended.faulty_call << "): " << problem << "\n  " << ended.error;
    fs::remove_all(folder("failed"));
  }
}

TEST_F(TrainingFaultsTest, interrupted_calls_and_short_writes_are_invisible) {
  SuiteCount count("R5 EINTR and short writes at every system call of a run");
  const int64_t all = 2 * whole_.calls;
  const int64_t stride = stride_of(all, 20, 2);
  for (int64_t i = static_cast<int64_t>(suite_seed()) % stride; i < all; i += stride) {
    const CallFault fault{.call = i / 2, .action = i % 2 == 0 ? CallAction::kInterrupt : CallAction::kShorten};
    const TrainingProcess ended = train_in_child(request("disturbed"), fault);
    const std::string problem = ended.exit_code == 0 ? find_difference("disturbed") : ended.error;
    EXPECT_TRUE(count.add(problem.empty()))
        << "call " << fault.call << " (" << ended.faulty_call << "), action " << i % 2 << ": " << problem;
    fs::remove_all(folder("disturbed"));
  }
}

// A disk of its own for this process: a tmpfs of `bytes` at `place`, seen by nobody else. The errno when that is not
// permitted, or 0.
int mount_small_disk(const fs::path& place, int64_t bytes) {
  const uid_t user = ::getuid();
  if (::unshare(CLONE_NEWNS) != 0) {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return errno;
    std::ofstream("/proc/self/setgroups") << "deny";
    std::ofstream("/proc/self/uid_map") << "0 " << user << " 1";
  }
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return errno;
  const std::string size = "size=" + std::to_string(bytes);
  return ::mount("none", place.c_str(), "tmpfs", 0, size.c_str()) != 0 ? errno : 0;
}

TEST_F(TrainingFaultsTest, a_disk_that_is_really_full_is_an_error_and_costs_nothing_once_there_is_room) {
  constexpr int kNotPermitted = 77;
  int64_t bytes_needed = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder("whole"))) {
    if (entry.is_regular_file()) bytes_needed += static_cast<int64_t>(entry.file_size());
  }
  fs::create_directory(folder("small-disk"));
  SuiteCount count("R5 real tmpfs of several sizes");
  const int64_t sizes = case_count(5, 20);
  int64_t full = 0;
  for (int64_t i = 1; i <= sizes; ++i) {
    // A save asks for a mebibyte more than its tensors.
    const int64_t bytes = (bytes_needed * 3 / 2 + (2 << 20)) * i / sizes / 4096 * 4096;
    TrainRequest on_small_disk = request("small-disk/run");
    const int code = run_in_child([&] {
      if (mount_small_disk(folder("small-disk"), std::max<int64_t>(bytes, 4096)) != 0) return kNotPermitted;
      const TrainingProcess ended = train_in_child(on_small_disk);
      std::string problem;
      if (ended.exit_code != 0) {
        for (const char* needed : {"No space left on device", " free", "small-disk/run"}) {
          if (ended.error.find(needed) == std::string::npos) problem = ended.error + " lacks " + needed;
        }
      }
      const std::string enough = "size=" + std::to_string(4 * bytes_needed + (8 << 20));
      if (::mount("none", folder("small-disk").c_str(), nullptr, MS_REMOUNT, enough.c_str()) != 0) return kNotPermitted;
      if (problem.empty()) problem = find_loss("small-disk/run", ended);
      if (!problem.empty()) std::fprintf(stderr, "%ld bytes: %s\n", static_cast<long>(bytes), problem.c_str());
      return !problem.empty() ? 3 : ended.exit_code;
    });
    if (code == kNotPermitted) GTEST_SKIP() << "a mount of its own is not permitted to this process: no real full disk";
    full += code == 1 ? 1 : 0;
    EXPECT_TRUE(count.add(code == 0 || code == 1)) << bytes << " bytes: exit code " << code;
  }
  count.note(std::to_string(full) + " of them were too small");
  EXPECT_GT(full, 0);
}

// Last: it trains in this process itself, so that the calls are at hand.
TEST_F(TrainingFaultsTest, after_a_power_cut_at_any_moment_the_run_continues_from_what_it_had_announced) {
  struct Announcer : RunObserver {
    WatchedCalls* watched = nullptr;
    std::map<int64_t, std::map<std::string, FileDigest>> saved;
    void on_checkpoint(const CheckpointRecord& record) override {
      watched->note(std::to_string(record.step));
      saved[record.step] = verify_checkpoint(record.folder).manifest.value().files;
    }
    void on_start(int64_t step, int64_t) override {
      if (step > 0) watched->note(std::to_string(step));
    }
    void on_finish() override { watched->note("finished"); }
  };
  std::vector<SystemCall> calls;
  fs::create_directory(folder("powered"));
  Announcer announcer;
  {
    WatchedCalls watched(folder("powered"));
    announcer.watched = &watched;
    run_training(request("powered"), real_file_system(), {&announcer});
    run_training(taking_back("powered"), real_file_system(), {&announcer});
    calls = watched.calls();
  }
  ASSERT_EQ(find_difference("powered"), "");
  SuiteCount count("R4 power cuts of a training run");
  SuiteCount resumed("R4 resumed bit-exact after a power cut");
  const int64_t cuts = case_count(60, 2000), resumes = case_count(6, 100);
  std::mt19937_64 random(suite_seed());
  std::vector<size_t> moments;
  // Every tenth just after the last call, when the run has said that it is finished.
  for (int64_t i = 0; i < cuts; ++i) moments.push_back(i % 10 == 0 ? calls.size() : random() % (calls.size() + 1));
  std::sort(moments.begin(), moments.end());
  ModelDisk disk(folder("nothing"));
  size_t done = 0;
  std::string announced;
  for (size_t i = 0; i < moments.size(); ++i) {
    for (; done < moments[i]; ++done) {
      SystemCall call = calls[done];
      if (call.name == "note") announced = call.path.string();
      call.path = call.name == "note" ? call.path : folder("nothing") / call.path.lexically_relative(folder("powered"));
      if (!call.from.empty()) call.from = folder("nothing") / call.from.lexically_relative(folder("powered"));
      disk.apply(call);
    }
    const PowerCut cut = random_power_cut(random);
    disk.write_after(cut, random, folder("left"));
    const std::string loss = find_loss_after_power_cut(announced, announcer.saved);
    EXPECT_TRUE(count.add(loss.empty())) << "after call " << moments[i] << " of seed " << suite_seed() << ", "
                                         << describe(cut) << ", announced " << announced << ": " << loss;
    if (static_cast<int64_t>(i) % (cuts / resumes) == 0) {
      TrainingProcess before;
      if (!announced.empty() && announced != "finished") before.announced = {std::stoll(announced)};
      const std::string problem = find_loss("left", before);
      EXPECT_TRUE(resumed.add(problem.empty())) << "after call " << moments[i] << ": " << problem;
    }
    fs::remove_all(folder("left"));
  }
}

}  // namespace
}  // namespace gemma_sft
