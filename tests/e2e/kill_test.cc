// R2: SIGKILL at random moments of a whole run, the identical command again, until it is done: every file of every
// checkpoint and of final_model must be the same as without a kill, to the byte, and no restart goes back by more than
// one interval between checkpoints.
#include <gtest/gtest.h>
#include <signal.h>

#include <random>
#include <sstream>

#include "data/files/file_system.h"
#include "tests/e2e/workspace.h"
#include "tests/testing/suite_count.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr int kMostKillsOfARun = 12;  // then it is left to finish, so that every run comes to an end

// Whole rows of steps in metrics.jsonl; a kill may have torn the last one.
int64_t steps_done(const fs::path& run) {
  if (!fs::exists(run / "metrics.jsonl")) return 0;
  std::istringstream text(read_file(run / "metrics.jsonl"));
  int64_t steps = 0;
  for (std::string row; std::getline(text, row) && !text.eof();) {
    steps += row.find("eval_loss") == std::string::npos ? 1 : 0;
  }
  return steps;
}

// The step of "continuing from run/checkpoint-12"; 0 where a run starts from nothing.
int64_t resumed_step(const std::string& err) {
  const std::string words = "continuing from ";
  const size_t at = err.find(words);
  if (at == std::string::npos) return 0;
  const size_t dash = err.find("checkpoint-", at);
  return std::stoll(err.substr(dash + 11));
}

void kill_and_compare(const std::string& name, const std::vector<std::string>& more, int64_t interval) {
  std::mt19937_64 random(suite_seed());
  const int64_t kills_wanted = case_count(25, 250);
  SuiteCount count("R2 kill -9 at random times, " + name);
  const Workspace work;
  const ProcessResult undisturbed = work.train("undisturbed", more);
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  const auto expected = digests_of_results(work / "undisturbed");
  const auto expected_metrics = lasting_metrics(work / "undisturbed");
  const std::string expected_samples = read_file(work / "undisturbed/samples.jsonl");
  ASSERT_GE(expected.size(), 12u);

  int64_t kills = 0;
  int64_t resumed = 0;
  int64_t most_lost = 0;
  for (int run = 0; kills < kills_wanted; ++run) {
    const std::string folder = "run-" + std::to_string(run);
    int killed_here = 0;
    for (;; ++killed_here) {
      const int64_t before = steps_done(work / folder);
      Process process(work.train_words(folder, more), work.options());
      const double share = std::uniform_real_distribution<double>(0, 1.05)(random);
      const bool kill =
          killed_here < kMostKillsOfARun && kills < kills_wanted && !process.ends_within(share * undisturbed.seconds);
      if (kill) process.send(SIGKILL);
      const ProcessResult result = process.wait();
      const bool told = result.err.find("continuing from") != std::string::npos;
      const bool was_done = result.out.find("already finished") != std::string::npos;  // killed on its way out
      if (told || (!kill && !was_done)) {
        most_lost = std::max(most_lost, before - resumed_step(result.err));
        EXPECT_LE(before - resumed_step(result.err), interval) << "seed " << suite_seed() << ", run " << run;
      }
      if (!kill) {
        ASSERT_EQ(result.exit_code, 0) << "seed " << suite_seed() << ", run " << run << ": " << result.err;
        break;
      }
      resumed += told ? 1 : 0;
      ++kills;
    }
    const bool same = digests_of_results(work / folder) == expected &&
                      lasting_metrics(work / folder) == expected_metrics &&
                      read_file(work / folder / "samples.jsonl") == expected_samples;
    EXPECT_TRUE(same) << "seed " << suite_seed() << ", run " << run;
    for (int i = 0; i < killed_here; ++i) count.add(same);
    fs::remove_all(work / folder);
  }
  EXPECT_GT(resumed, 0) << "no killed process had taken up a checkpoint: these kills tested little";
  count.note(std::to_string(resumed) + " of processes that had resumed");
  count.note("at most " + std::to_string(most_lost) + " of " + std::to_string(interval) + " steps done again");
}

TEST(Kill, R2_a_full_run_is_the_same_after_every_kill) {
  kill_and_compare("full", {"--set", "output.checkpoint_every=3"}, 3);
}

TEST(Kill, R2_a_run_that_saves_in_the_background_is_the_same_after_every_kill) {
  // A save is over before the next one begins, so that two intervals at most are done again.
  kill_and_compare("background saves",
                   {"--set", "output.checkpoint_every=3", "--set", "output.background_save=true", "--set",
                    "training.precision=bf16"},
                   6);
}

TEST(Kill, R2_a_lora_run_with_dropout_padding_and_a_best_checkpoint_is_the_same_after_every_kill) {
  kill_and_compare("LoRA",
                   {"--set", "output.checkpoint_every=4", "--set", "lora.rank=4", "--set", "lora.dropout=0.1", "--set",
                    "training.packing=false", "--set", "training.precision=bf16_mixed", "--set",
                    "evaluation.keep_best=true", "--set", "training.gradient_accumulation_steps=2"},
                   4);
}

}  // namespace
}  // namespace gemma_sft
