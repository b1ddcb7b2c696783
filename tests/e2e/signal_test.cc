// R10: stop signals at random moments of a run, the identical command again, until it is done: each ends the process
// within a step and a save, with exit code 128 + signal, and in the end every file is the same as without a signal, to
// the byte. Moments are spread over the phases of a run, each found by what the run folder shows.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <random>
#include <thread>

#include "tests/e2e/workspace.h"
#include "tests/testing/suite_count.h"
#include "trainer/checkpoint/checkpoint_format.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr int kSteps = 12;
constexpr double kMostSeconds = 5;  // of a step and a save of the tiny model

enum class Phase { kStartUp, kTokenising, kFirstStep, kEvaluation, kSave, kExport, kLastStep, kAnyTime, kEnd };

const char* name_of(Phase phase) {
  const char* names[] = {"start-up", "tokenising", "first step", "evaluation",
                         "save",     "export",     "last step",  "any time"};
  return names[static_cast<int>(phase)];
}

bool has_entry(const fs::path& folder, const std::string& start) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().filename().string().starts_with(start)) return true;
  }
  return false;
}

std::string text_of(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

class SignalTest : public ::testing::Test {
 protected:
  SignalTest() {
    work_.files().write("many.jsonl", make_rows(1500));
    undisturbed_ = work_.train("undisturbed", more_);
  }

  // Steps that metrics.jsonl has now, and whether the last of its rows is of a step.
  struct Seen {
    int steps = 0;
    bool evaluated = false;  // after the last step
  };
  static Seen look(const fs::path& run) {
    Seen seen;
    std::ifstream stream(run / "metrics.jsonl");
    for (std::string line; std::getline(stream, line);) {
      seen.evaluated = line.find("eval_loss") != std::string::npos;
      if (!seen.evaluated) ++seen.steps;
    }
    return seen;
  }

  // Is the run in the phase, as far as its folder shows?
  bool is_in(Phase phase, const fs::path& run, size_t log_before) const {
    switch (phase) {
      case Phase::kTokenising: return fs::exists(run / "run.lock") && fs::file_size(run / "run.lock") > 0;
      case Phase::kFirstStep:
        return text_of(run / "run.log").find("training from step ", log_before) != std::string::npos;
      case Phase::kEvaluation: {
        const Seen seen = look(run);
        return seen.steps > 0 && seen.steps % 3 == 0 && !seen.evaluated;
      }
      case Phase::kSave: return has_entry(run, ".checkpoint-");
      case Phase::kExport: return has_entry(run, ".final_model.");
      case Phase::kLastStep: return look(run).steps == kSteps - 1;
      default: return true;
    }
  }

  // Waits for the moment; false: the process ended before it came.
  bool wait_for(Phase phase, Process& process, const fs::path& run) {
    std::uniform_real_distribution<double> share(0, 1);
    if (phase == Phase::kStartUp) return !process.ends_within(share(random_) * 0.5 * undisturbed_.seconds);
    if (phase == Phase::kAnyTime) return !process.ends_within(share(random_) * undisturbed_.seconds);
    const size_t log_before = text_of(run / "run.log").size();
    while (!process.ends_within(0.0003)) {
      if (!is_in(phase, run, log_before)) continue;
      return !process.ends_within(share(random_) * 0.004);
    }
    return false;
  }

  // What a stopped run may have that the undisturbed one has not: the checkpoints of its stops.
  std::map<std::string, std::string> comparable(const fs::path& run) const {
    std::map<std::string, std::string> digests = digests_of_results(run);
    std::erase_if(digests, [](const auto& entry) {
      const auto step = step_of_checkpoint_name(entry.first.substr(0, entry.first.find('/')));
      return step && *step % 4 != 0;
    });
    return digests;
  }

  void expect_whole_checkpoints(const fs::path& run) {
    if (!fs::exists(run)) return;  // the signal came before the folder was made
    for (const fs::directory_entry& entry : fs::directory_iterator(run)) {
      if (!step_of_checkpoint_name(entry.path().filename().string())) continue;
      const CheckpointVerdict verdict = verify_checkpoint(entry.path());
      EXPECT_TRUE(verdict.manifest) << entry.path() << ": " << verdict.problem;
    }
  }

  const Workspace work_;
  const std::vector<std::string> more_ = {
      "--data", "many.jsonl",         "--set", "training.max_steps=12",     "--set", "dataset.validation_fraction=0.01",
      "--set",  "evaluation.every=3", "--set", "output.checkpoint_every=4", "--set", "output.keep_checkpoints=100",
      "--set",  "lora.rank=4",        "--set", "lora.dropout=0.1"};
  ProcessResult undisturbed_;
  std::mt19937_64 random_{suite_seed()};
};

TEST_F(SignalTest, R10_at_any_moment_a_signal_ends_the_run_soon_and_the_same_command_continues_exactly) {
  ASSERT_EQ(undisturbed_.exit_code, 0) << undisturbed_.err;
  const auto wanted = comparable(work_ / "undisturbed");
  ASSERT_GT(wanted.size(), 15u);
  SuiteCount count("R10 stop signals at random moments");
  std::map<Phase, int> hits;
  const int64_t wanted_signals = case_count(30, 300);
  double slowest = 0;
  int twice = 0;
  for (int run = 0; count.cases() < wanted_signals; ++run) {
    const std::string name = "run-" + std::to_string(run);
    std::vector<bool> good;
    std::string story;
    for (int start = 0;; ++start) {
      Process process(work_.train_words(name, more_), work_.options());
      const auto phase = static_cast<Phase>((run + 3 * start) % static_cast<int>(Phase::kEnd));
      const bool last = start >= 8 || count.cases() + static_cast<int64_t>(good.size()) >= wanted_signals;
      if (last || !wait_for(phase, process, work_ / name)) {
        const ProcessResult result = process.wait();
        ASSERT_EQ(result.exit_code, 0) << "seed " << suite_seed() << story << ": " << result.err;
        break;
      }
      const int numbers[] = {SIGTERM, SIGINT, SIGUSR1, SIGHUP};
      const int number = numbers[random_() % 4];
      const bool second = random_() % 6 == 0;
      const auto sent = std::chrono::steady_clock::now();
      process.send(number);
      int last_sent = number;
      if (second) {
        std::this_thread::sleep_for(std::chrono::microseconds(random_() % 4000));
        last_sent = numbers[random_() % 4];
        process.send(last_sent);
        ++twice;
      }
      const ProcessResult result = process.wait();
      const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - sent).count();
      slowest = std::max(slowest, took);
      story +=
          std::string("; ") + name_of(phase) + (second ? ", twice" : "") + ": " + std::to_string(result.shell_code());
      const bool ended_first = result.exit_code == 0 && fs::exists(work_ / name / "completed.json");
      const bool code = result.shell_code() == 128 + number || result.shell_code() == 128 + last_sent || ended_first;
      EXPECT_TRUE(code) << story << ": " << result.err;
      EXPECT_LT(took, kMostSeconds) << story;
      // Where the run stands is not known before its checkpoints have been looked through.
      EXPECT_EQ(result.err.find("after step 0;"), std::string::npos) << story << ": " << result.err;
      expect_whole_checkpoints(work_ / name);
      good.push_back(code && took < kMostSeconds);
      ++hits[phase];
    }
    const bool same = comparable(work_ / name) == wanted &&
                      lasting_metrics(work_ / name) == lasting_metrics(work_ / "undisturbed") &&
                      text_of(work_ / name / "samples.jsonl") == text_of(work_ / "undisturbed/samples.jsonl");
    EXPECT_TRUE(same) << "seed " << suite_seed() << ", " << name << story;
    for (const bool one : good) count.add(one && same);
    fs::remove_all(work_ / name);
  }
  for (const auto& [phase, number] : hits) count.note(std::string(name_of(phase)) + " " + std::to_string(number));
  count.note(std::to_string(twice) + " with a second signal");
  count.note("slowest exit " + std::to_string(slowest) + " s");
  EXPECT_GE(hits.size(), 7u) << "some phase was never hit";
}

}  // namespace
}  // namespace gemma_sft
