// SIGKILL at random moments of a whole run, the identical command again, until it is done: every file of every
// checkpoint and of final_model must be the same as without a kill, to the byte. GEMMA_SFT_KILLS and
// GEMMA_SFT_KILL_SEED change the numbers.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <iostream>
#include <random>

#include "tests/e2e/workspace.h"

namespace gemma_sft {
namespace {

int64_t number_from_environment(const char* name, int64_t otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? std::strtoll(value, nullptr, 10) : otherwise;
}

constexpr int kMostKillsOfARun = 12;  // then it is left to finish, so that every run comes to an end

void kill_and_compare(const std::vector<std::string>& more, int64_t kills_wanted, uint64_t seed) {
  std::mt19937_64 random(seed);
  const Workspace work;
  const ProcessResult undisturbed = work.train("undisturbed", more);
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  const auto expected = digests_of_results(work / "undisturbed");
  const auto expected_metrics = lasting_metrics(work / "undisturbed");
  ASSERT_GE(expected.size(), 12u);

  int64_t kills = 0;
  int64_t resumed = 0;
  for (int run = 0; kills < kills_wanted; ++run) {
    const std::string name = "run-" + std::to_string(run);
    for (int killed_here = 0;; ++killed_here) {
      Process process(work.train_words(name, more), work.options());
      const double share = std::uniform_real_distribution<double>(0, 1.05)(random);
      if (killed_here < kMostKillsOfARun && kills < kills_wanted && !process.ends_within(share * undisturbed.seconds)) {
        process.send(SIGKILL);
        resumed += process.wait().err.find("continuing from") != std::string::npos ? 1 : 0;
        ++kills;
        continue;
      }
      const ProcessResult result = process.wait();
      ASSERT_EQ(result.exit_code, 0) << "seed " << seed << ", run " << run << ": " << result.err;
      break;
    }
    EXPECT_EQ(digests_of_results(work / name), expected) << "seed " << seed << ", run " << run;
    EXPECT_EQ(lasting_metrics(work / name), expected_metrics) << "seed " << seed << ", run " << run;
    std::filesystem::remove_all(work / name);
  }
  EXPECT_GT(resumed, 0) << "no killed process had taken up a checkpoint: these kills tested little";
  std::cout << kills << " kills, " << resumed << " of processes that had resumed, seed " << seed << "\n";
}

TEST(Kill, AFullRunIsTheSameAfterEveryKill) {
  kill_and_compare({"--set", "output.checkpoint_every=3"}, number_from_environment("GEMMA_SFT_KILLS", 50) / 2,
                   static_cast<uint64_t>(number_from_environment("GEMMA_SFT_KILL_SEED", 1)));
}

TEST(Kill, ALoraRunWithDropoutPaddingAndABestCheckpointIsTheSameAfterEveryKill) {
  kill_and_compare({"--set", "output.checkpoint_every=4", "--set", "lora.rank=4", "--set", "lora.dropout=0.1", "--set",
                    "training.packing=false", "--set", "training.precision=bf16_mixed", "--set",
                    "evaluation.keep_best=true", "--set", "training.gradient_accumulation_steps=2"},
                   number_from_environment("GEMMA_SFT_KILLS", 50) / 2,
                   static_cast<uint64_t>(number_from_environment("GEMMA_SFT_KILL_SEED", 1)) + 1);
}

}  // namespace
}  // namespace gemma_sft
