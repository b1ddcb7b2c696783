#include "tests/testing/system_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> names_of(const WatchedCalls& watched) {
  std::vector<std::string> names;
  for (const SystemCall& call : watched.calls()) names.push_back(call.name + " " + call.path.filename().string());
  return names;
}

TEST(WatchedCallsTest, every_call_of_a_durable_write_is_seen_with_its_bytes_and_others_are_not) {
  const TempDir dir, elsewhere;
  WatchedCalls watched(dir.path());
  write_file_durably(real_file_system(), dir / "f", "new");
  write_file_durably(real_file_system(), elsewhere / "f", "new");
  const std::string folder = dir.path().filename().string();
  EXPECT_THAT(names_of(watched), ElementsAre("open .f.tmp", "write .f.tmp", "fsync .f.tmp", "close .f.tmp", "rename f",
                                             "open " + folder, "fsync " + folder, "close " + folder));
  EXPECT_EQ(watched.calls()[1].bytes, "new");
  EXPECT_EQ(watched.calls()[4].from, dir / ".f.tmp");
}

TEST(WatchedCallsTest, the_chosen_call_fails_and_only_that_one) {
  const TempDir dir;
  const WatchedCalls watched(dir.path(), {.call = 1, .action = CallAction::kFail, .error_number = EDQUOT});
  try {
    write_file_durably(real_file_system(), dir / "f", "new");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("Disk quota exceeded"));
  }
  EXPECT_TRUE(watched.has_struck());
  EXPECT_THAT(dir.list(), ElementsAre());
}

TEST(WatchedCallsTest, interrupted_and_short_calls_are_repeated_by_the_file_layer) {
  for (const CallAction action : {CallAction::kInterrupt, CallAction::kShorten}) {
    const TempDir dir;
    const WatchedCalls watched(dir.path(), {.call = 1, .action = action});
    write_file_durably(real_file_system(), dir / "f", "abcdef");
    EXPECT_TRUE(watched.has_struck());
    EXPECT_EQ(watched.calls()[2].name, "write");
    EXPECT_EQ(watched.calls()[2].bytes, action == CallAction::kShorten ? "def" : "abcdef");
    EXPECT_EQ(read_file(dir / "f"), "abcdef");
  }
}

TEST(WatchedCallsTest, the_process_is_killed_before_amid_or_after_the_call) {
  const std::pair<CallAction, std::string> cases[] = {
      {CallAction::kKillBefore, ""}, {CallAction::kKillHalfway, "abc"}, {CallAction::kKillAfter, "abcdef"}};
  for (const auto& [action, left] : cases) {
    const TempDir dir;
    const pid_t child = ::fork();
    if (child == 0) {
      const WatchedCalls watched(dir.path(), {.call = 1, .action = action});
      write_file_durably(real_file_system(), dir / "f", "abcdef");
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    EXPECT_EQ(read_file(dir / ".f.tmp"), left);
  }
}

}  // namespace
}  // namespace gemma_sft
