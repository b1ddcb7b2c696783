#include "trainer/stop_signal.h"

#include <gtest/gtest.h>
#include <signal.h>

namespace gemma_sft {
namespace {

TEST(StopSignalTest, the_first_signal_only_sets_the_flag) {
  install_stop_signals();
  EXPECT_EQ(stop_signal(), 0);
  raise(SIGTERM);
  EXPECT_EQ(stop_signal(), SIGTERM);
  install_stop_signals();
  EXPECT_EQ(stop_signal(), 0);
}

TEST(StopSignalTest, the_second_signal_ends_the_process_at_once) {
  for (int number : {SIGTERM, SIGINT}) {
    EXPECT_EXIT(
        {
          install_stop_signals();
          raise(SIGTERM);
          raise(number);
        },
        ::testing::ExitedWithCode(128 + number), "");
  }
}

}  // namespace
}  // namespace gemma_sft
