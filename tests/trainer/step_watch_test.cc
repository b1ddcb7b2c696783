#include "trainer/step_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace gemma_sft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

// Collects messages; `wait_for(n)` waits until there are that many, or gives up after ten seconds.
struct Messages {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> all;

  OnStall taker() {
    return [this](const std::string& message) {
      const std::lock_guard lock(mutex);
      all.push_back(message);
      changed.notify_all();
    };
  }
  bool wait_for(size_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, 10s, [&] { return all.size() >= count; });
  }
};

TEST(StepWatchTest, a_step_that_hangs_is_named_with_what_it_is_at_and_its_rows) {
  Messages messages;
  StepWatch watch(0.02, messages.taker());
  watch.begin(17, "waiting for data");
  watch.enter("forward and backward pass, micro-batch 2 of 4", "data.jsonl:3 (id a)");
  ASSERT_TRUE(messages.wait_for(1));
  EXPECT_THAT(messages.all[0],
              AllOf(HasSubstr("step 17: not finished after 0."), HasSubstr("training.step_timeout: 0.02"),
                    HasSubstr("at: forward and backward pass, micro-batch 2 of 4. Its rows: data.jsonl:3 (id a).")));
}

TEST(StepWatchTest, a_process_that_was_stopped_itself_has_not_stalled) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    Messages messages;
    StepWatch watch(1.5, messages.taker());
    watch.begin(1, "waiting for data");
    if (write(ready[1], "x", 1) != 1) _exit(2);
    std::this_thread::sleep_for(300ms);
    watch.end();
    const std::lock_guard lock(messages.mutex);
    _exit(messages.all.empty() ? 0 : 1);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  std::this_thread::sleep_for(50ms);
  ASSERT_EQ(kill(child, SIGSTOP), 0);
  std::this_thread::sleep_for(2s);
  ASSERT_EQ(kill(child, SIGCONT), 0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  close(ready[0]);
  close(ready[1]);
}

TEST(StepWatchTest, the_clock_starts_anew_with_each_step_and_stands_between_them) {
  Messages messages;
  StepWatch watch(0.25, messages.taker());
  for (int step = 1; step <= 20; ++step) {
    watch.begin(step, "waiting for data");
    std::this_thread::sleep_for(10ms);
    watch.end();
  }
  std::this_thread::sleep_for(400ms);  // an evaluation, a save
  EXPECT_TRUE(messages.all.empty());
  watch.begin(21, "waiting for data");
  ASSERT_TRUE(messages.wait_for(1));
  EXPECT_THAT(messages.all[0], AllOf(HasSubstr("step 21:"), HasSubstr("at: waiting for data.")));
}

TEST(StepWatchTest, each_step_is_told_of_once) {
  Messages messages;
  StepWatch watch(0.01, messages.taker());
  watch.begin(1, "optimizer step");
  ASSERT_TRUE(messages.wait_for(1));
  std::this_thread::sleep_for(60ms);
  watch.begin(2, "optimizer step");
  ASSERT_TRUE(messages.wait_for(2));
  watch.end();
  std::this_thread::sleep_for(30ms);
  EXPECT_EQ(messages.all.size(), 2u);
}

TEST(StepWatchTest, while_it_tells_the_training_thread_stands_still) {
  std::atomic<bool> telling = false, told = false;
  StepWatch watch(0.01, [&](const std::string&) {
    telling = true;
    std::this_thread::sleep_for(100ms);
    told = true;
  });
  watch.begin(1, "optimizer step");
  while (!telling) std::this_thread::yield();
  watch.end();
  EXPECT_TRUE(told);
}

TEST(StepWatchTest, without_a_limit_or_somebody_to_tell_nothing_is_watched) {
  Messages messages;
  StepWatch no_limit(std::nullopt, messages.taker());
  StepWatch nobody(0.001, nullptr);
  for (StepWatch* watch : {&no_limit, &nobody}) {
    watch->begin(1, "waiting for data");
    std::this_thread::sleep_for(20ms);
    watch->end();
  }
  EXPECT_TRUE(messages.all.empty());
}

}  // namespace
}  // namespace gemma_sft
