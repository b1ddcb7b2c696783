#include "trainer/stop_signal.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

#include "tests/trainer/send_signal.h"

namespace gemma_sft {
namespace {

TEST(StopSignalTest, the_first_signal_only_sets_the_flag) {
  for (int number : {SIGTERM, SIGINT}) {
    install_stop_signals();
    EXPECT_EQ(stop_signal(), 0);
    send_stop_signal(number);
    EXPECT_EQ(stop_signal(), number);
  }
  install_stop_signals();
  EXPECT_EQ(stop_signal(), 0);
}

TEST(StopSignalTest, the_second_signal_ends_the_process_at_once) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (int number : {SIGTERM, SIGINT}) {
    EXPECT_EXIT(
        {
          install_stop_signals();
          send_stop_signal(SIGTERM);
          kill(getpid(), number);
          for (;;) pause();  // what it was doing is not waited for
        },
        ::testing::ExitedWithCode(128 + number), "");
  }
}

TEST(StopSignalTest, no_thread_that_computes_is_interrupted) {
  install_stop_signals();
  const auto blocks_both = [] {
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
    return sigismember(&blocked, SIGTERM) == 1 && sigismember(&blocked, SIGINT) == 1;
  };
  EXPECT_TRUE(blocks_both());
  bool in_a_new_thread = false;
  std::thread([&] { in_a_new_thread = blocks_both(); }).join();
  EXPECT_TRUE(in_a_new_thread);
}

}  // namespace
}  // namespace gemma_sft
