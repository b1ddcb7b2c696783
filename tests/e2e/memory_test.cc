// R12, memory: a run that finds none says where it was, what it asked for and what to change, with exit code 11; what
// it had saved is whole, and the same command with memory ends with the bytes of an undisturbed run. And a step that
// stalls is named, with exit code 8.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "data/files/file_system.h"
#include "tests/e2e/workspace.h"
#include "tests/testing/suite_count.h"
#include "trainer/checkpoint/checkpoint_format.h"

namespace gemma_sft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

class MemoryTest : public ::testing::Test {
 protected:
  ProcessOptions with_faults(std::map<std::string, std::string> environment) const {
    ProcessOptions options = work_.options();
    environment["LD_PRELOAD"] = GEMMA_SFT_FAULT_INJECTOR;
    // oneDNN uses its objects of this size without a look at whether there was room (dnnl::impl::c_compatible): no
    // error of ours could come of it. Where memory is really at its end model/matrix_product.cc notices before.
    environment["FAULT_EXEMPT"] = "200000-300000";
    options.environment = std::move(environment);
    return options;
  }
  ProcessResult train(const std::string& run, const std::map<std::string, std::string>& environment,
                      const std::vector<std::string>& more) const {
    return run_process(work_.train_words(run, more), with_faults(environment));
  }

  // "reading the data", of "error: out of memory (reading the data, step 3, ...): tried to ..."
  static std::string phase_of(const std::string& text) {
    const std::string start = "out of memory (";
    const size_t at = text.find(start);
    if (at == std::string::npos) return "";
    const size_t begin = at + start.size();
    return text.substr(begin, text.find_first_of(",)", begin) - begin);
  }

  bool checkpoints_are_whole(const fs::path& run) const {
    if (!fs::exists(run)) return true;
    for (const fs::directory_entry& entry : fs::directory_iterator(run)) {
      if (step_of_checkpoint_name(entry.path().filename().string()) && !verify_checkpoint(entry.path()).manifest) {
        return false;
      }
    }
    return true;
  }

  // oneDNN and the system do not tell how much they wanted.
  static bool says_how_much(const std::string& text) {
    for (const char* words :
         {"an unknown amount (could not create a primitive)", "an unknown amount (could not execute a primitive)",
          "an unknown amount (Cannot allocate memory)"}) {
      if (text.find(std::string("tried to allocate ") + words) != std::string::npos) return true;
    }
    return text.find("tried to allocate an unknown") == std::string::npos;
  }

  static bool explains(const ProcessResult& result) {
    return result.exit_code == 11 && says_how_much(result.err) &&
           result.err.find("error: out of memory (") != std::string::npos &&
           result.err.find("tried to allocate ") != std::string::npos &&
           result.err.find("training.batch_size (16 -> 8 -> 4)") != std::string::npos &&
           result.err.find("training.gradient_accumulation_steps: 4") != std::string::npos &&
           result.err.find("larger accelerator") != std::string::npos;
  }

  const Workspace work_;
  const std::vector<std::string> more_ = {"--set", "training.max_steps=6", "--set", "output.checkpoint_every=2",
                                          "--set", "evaluation.every=3",   "--set", "output.keep_checkpoints=100"};
};

TEST_F(MemoryTest, R12_an_allocation_that_fails_anywhere_in_a_run_is_explained_and_costs_no_saved_work) {
  const std::map<std::string, std::string> counting = {{"FAULT_ALLOCATION", "32768:0"},
                                                       {"FAULT_ALLOCATION_LOG", (work_ / "n").string()}};
  const auto requests_so_far = [&] { return std::stol(read_file(work_ / "n")); };
  ASSERT_EQ(train("undisturbed", counting, more_).exit_code, 0);
  const long requests = requests_so_far();
  // Libraries that start up without memory end the process before any of our code runs.
  run_process({program("gemma-sft-engine"), "--version"}, with_faults(counting));
  const long at_start = requests_so_far();
  ASSERT_GT(requests, at_start + 100);
  const auto wanted = digests_of_results(work_ / "undisturbed");
  const auto wanted_metrics = lasting_metrics(work_ / "undisturbed");
  SuiteCount count("R12 host allocations that fail");
  std::mt19937_64 random(suite_seed());
  std::map<std::string, int> phases;
  const int64_t cases = case_count(8, 240);
  for (int64_t i = 0; i < cases; ++i) {
    // One out of each of `cases` equal parts of the run.
    const double part =
        (static_cast<double>(i) + std::uniform_real_distribution<>(0, 1)(random)) / static_cast<double>(cases);
    const long request = at_start + 1 + static_cast<long>(part * static_cast<double>(requests - at_start));
    const std::string run = "run-" + std::to_string(i);
    const ProcessResult failed = train(run, {{"FAULT_ALLOCATION", "32768:" + std::to_string(request)}}, more_);
    const bool survived = failed.exit_code == 0;  // a library that could do without
    EXPECT_TRUE(survived || explains(failed)) << "request " << request << ": " << failed.shell_code() << failed.err;
    ++phases[survived ? "done without" : phase_of(failed.err)];
    const bool whole = checkpoints_are_whole(work_ / run);
    EXPECT_TRUE(whole) << "request " << request;
    const ProcessResult again = work_.train(run, more_);
    const bool same = again.exit_code == 0 && digests_of_results(work_ / run) == wanted &&
                      lasting_metrics(work_ / run) == wanted_metrics;
    EXPECT_TRUE(same) << "request " << request << ": " << again.err;
    count.add((survived || explains(failed)) && whole && same);
    fs::remove_all(work_ / run);
  }
  for (const auto& [phase, number] : phases) count.note(phase + " " + std::to_string(number));
}

TEST_F(MemoryTest, R12_a_limit_of_the_address_space_anywhere_is_explained_and_costs_no_saved_work) {
  ASSERT_EQ(work_.train("undisturbed", more_).exit_code, 0);
  const auto wanted = digests_of_results(work_ / "undisturbed");
  SuiteCount count("R12 limits of the address space");
  std::mt19937_64 random(suite_seed());
  std::map<std::string, int> phases;
  const int64_t cases = case_count(6, 120);
  for (int64_t i = 0; i < cases; ++i) {
    // In kilobytes: from too little for the start to enough, one out of each of equal parts.
    const double part =
        (static_cast<double>(i) + std::uniform_real_distribution<>(0, 1)(random)) / static_cast<double>(cases);
    const auto limit = static_cast<int64_t>(440'000 + part * 240'000);
    const std::string run = "run-" + std::to_string(i);
    std::string command = "ulimit -v " + std::to_string(limit) + "; exec";
    for (const std::string& word : work_.train_words(run, more_)) command += " '" + word + "'";
    const ProcessResult result = run_process({"/bin/sh", "-c", command}, work_.options());
    const bool at_start = result.exit_code == 11 && result.err.find("out of memory (start-up): ") != std::string::npos;
    const bool good = result.exit_code == 0 || at_start || explains(result);
    EXPECT_TRUE(good) << limit << " KB: " << result.shell_code() << " " << result.err;
    ++phases[result.exit_code == 0 ? "enough" : phase_of(result.err)];
    const bool whole = checkpoints_are_whole(work_ / run);
    const ProcessResult again = work_.train(run, more_);
    const bool same = again.exit_code == 0 && digests_of_results(work_ / run) == wanted;
    EXPECT_TRUE(whole && same) << limit << " KB: " << again.err;
    count.add(good && whole && same);
    fs::remove_all(work_ / run);
  }
  for (const auto& [phase, number] : phases) count.note(phase + " " + std::to_string(number));
}

TEST_F(MemoryTest, ThePreflightFindsTheLargestMicroBatchOfALaterStepBeforeAnythingIsTrained) {
  std::string prompt;
  for (int word = 0; word < 3000; ++word) prompt += "stone ";
  work_.files().write(
      "long.jsonl",
      make_rows(40) + nlohmann::json({{"id", "long"}, {"prompt", prompt}, {"response", "river"}}).dump() + "\n");
  const std::vector<std::string> more = {"--data", "long.jsonl",
                                         "--set",  "model.max_seq_length=8192",
                                         "--set",  "dataset.validation_fraction=0",
                                         "--set",  "evaluation.every=null",
                                         "--set",  "training.shuffle=false",
                                         "--set",  "training.batch_size=2"};
  // 41 rows, two a step: the long one is alone in step 21. Only its batch needs pieces of 3 MB.
  const auto run = [&](const std::string& name, const char* preflight) {
    std::vector<std::string> words = more;
    words.insert(words.end(), {"--set", preflight});
    return train(name, {{"FAULT_ALLOCATION", "3000000:1+"}}, words);
  };
  const ProcessResult with = run("with", "training.preflight=true");
  EXPECT_TRUE(explains(with)) << with.err;
  EXPECT_THAT(with.err,
              AllOf(HasSubstr("preflight of the largest micro-batch of the run: forward and backward pass, step 21"),
                    HasSubstr("the longest of "), HasSubstr("at long.jsonl:41 (id long)")));
  EXPECT_EQ(count_lines(work_ / "with/metrics.jsonl"), 0);
  const ProcessResult without = run("without", "training.preflight=false");
  EXPECT_TRUE(explains(without)) << without.err;
  EXPECT_THAT(without.err, HasSubstr("(forward and backward pass, step 21, "));
  EXPECT_EQ(count_lines(work_ / "without/metrics.jsonl"), 20);
  EXPECT_TRUE(fs::exists(work_ / "without/checkpoint-20"));
}

TEST_F(MemoryTest, AStepThatStallsIsNamedWithWhatItIsAtAndTheRunEnds) {
  ASSERT_EQ(work_.train("undisturbed", more_).exit_code, 0);
  std::vector<std::string> words = more_;
  words.insert(words.end(), {"--set", "training.step_timeout=1.5"});
  // The rows are read once before the first step, and some for the preflight; then the disk hangs.
  const ProcessResult stalled = train("run", {{"FAULT_STALL", "rows.jsonl:32"}}, words);
  EXPECT_EQ(stalled.exit_code, 8) << stalled.err;
  EXPECT_THAT(stalled.err,
              AllOf(HasSubstr("error: step "), HasSubstr("not finished after "), HasSubstr("it has been at: ")));
  EXPECT_THAT(read_file(work_ / "run/run.log"), HasSubstr("error: step "));
  EXPECT_EQ(work_.train("run", words).exit_code, 0);
  const auto weights = [&](const std::string& run) { return read_file(work_ / run / "final_model/model.safetensors"); };
  EXPECT_EQ(weights("run"), weights("undisturbed"));
}

}  // namespace
}  // namespace gemma_sft
