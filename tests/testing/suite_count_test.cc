#include "tests/testing/suite_count.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace gemma_sft {
namespace {

// The environment as it was, again, when the test is over: the long run sets these names for this program, too.
class SuiteCountTest : public ::testing::Test {
 protected:
  SuiteCountTest() : long_run_(value_of("GEMMA_SFT_LONG")), seed_(value_of("GEMMA_SFT_SEED")) {
    ::unsetenv("GEMMA_SFT_LONG");
    ::setenv("GEMMA_SFT_SEED", "7", 1);
  }
  ~SuiteCountTest() override {
    restore("GEMMA_SFT_LONG", long_run_);
    restore("GEMMA_SFT_SEED", seed_);
  }

 private:
  static std::string value_of(const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
  }
  static void restore(const char* name, const std::string& value) {
    if (value.empty()) {
      ::unsetenv(name);
    } else {
      ::setenv(name, value.c_str(), 1);
    }
  }
  std::string long_run_, seed_;
};

TEST_F(SuiteCountTest, the_environment_chooses_the_number_of_cases_and_the_seed) {
  EXPECT_FALSE(is_long_run());
  EXPECT_EQ(case_count(40, 10'000), 40);
  EXPECT_EQ(suite_seed(), 7u);
  ::setenv("GEMMA_SFT_LONG", "1", 1);
  EXPECT_EQ(case_count(40, 10'000), 10'000);
  ::unsetenv("GEMMA_SFT_SEED");
  EXPECT_EQ(suite_seed(), 1u);
}

TEST_F(SuiteCountTest, the_line_gives_good_cases_of_all_cases_and_the_seed) {
  ::testing::internal::CaptureStdout();
  {
    SuiteCount count("R0 a suite");
    EXPECT_TRUE(count.add(true));
    EXPECT_FALSE(count.add(false));
    EXPECT_TRUE(count.add(true));
    count.note("1 of them new");
  }
  print_figure("R0 a speed", "1.5 GB/s");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(),
            "R0 a suite: 2/3 (seed 7; 1 of them new)\nR0 a speed: 1.5 GB/s (seed 7)\n");
}

}  // namespace
}  // namespace gemma_sft
