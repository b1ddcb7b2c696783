#include "trainer/stop_signal.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

#include "tests/trainer/send_signal.h"

namespace gemma_sft {
namespace {

TEST(StopSignalTest, the_first_signal_only_sets_the_flag) {
  for (int number : {SIGTERM, SIGINT, SIGUSR1, SIGHUP}) {
    signal(number, SIG_DFL);  // these tests may run under nohup, and what is ignored from the start stays so
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
  for (int number : {SIGTERM, SIGINT, SIGUSR1, SIGHUP}) {
    EXPECT_EXIT(
        {
          signal(number, SIG_DFL);
          install_stop_signals();
          send_stop_signal(SIGTERM);
          kill(getpid(), number);
          for (;;) pause();  // what it was doing is not waited for
        },
        ::testing::ExitedWithCode(128 + number), "");
  }
}

TEST(StopSignalTest, a_process_started_with_hangups_ignored_goes_on_ignoring_them) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        signal(SIGHUP, SIG_IGN);  // as nohup does
        install_stop_signals();
        kill(getpid(), SIGHUP);
        send_stop_signal(SIGTERM);
        _exit(stop_signal());
      },
      ::testing::ExitedWithCode(SIGTERM), "");
}

TEST(StopSignalTest, work_below_a_function_that_could_return_is_left_by_an_exception) {
  install_stop_signals();
  throw_if_stopped();
  send_stop_signal(SIGINT);
  EXPECT_THROW(throw_if_stopped(), StopRequested);
  install_stop_signals();
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
