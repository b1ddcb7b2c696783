#include "tests/testing/failing_file_system.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using ::testing::ElementsAre;

TEST(FailingFileSystem, WritesDownEveryCallAndPassesItOn) {
  const TempDir dir;
  FailingFileSystem files;
  const auto file = files.create(dir / "a");
  file->append("abc");
  file->sync();
  file->close();
  files.truncate(dir / "a", 2);
  files.rename(dir / "a", dir / "b");
  files.require_space(dir.path(), 1);
  EXPECT_THAT(files.journal(), ElementsAre("create a", "append a", "sync a", "close a", "truncate a", "rename b",
                                           "require_space " + dir.path().filename().string()));
  EXPECT_EQ(files.calls()[1].bytes, 3u);
  EXPECT_EQ(read_file(dir / "b"), "ab");
  EXPECT_FALSE(files.has_failed());
}

TEST(FailingFileSystem, FailsTheNamedCallOnlyOrThatAndAllLaterOnes) {
  const TempDir dir;
  FailingFileSystem once({.call = 1});
  const auto file = once.create(dir / "a");
  EXPECT_THROW(file->append("abc"), Error);
  EXPECT_TRUE(once.has_failed());
  EXPECT_NO_THROW(file->append("def"));
  EXPECT_EQ(read_file(dir / "a"), "def");

  FailingFileSystem broken({.call = 1, .kind = FaultKind::kFromNowOn});
  const auto other = broken.create(dir / "b");
  EXPECT_THROW(other->append("abc"), Error);
  EXPECT_THROW(other->sync(), Error);
  EXPECT_THROW(broken.remove(dir / "b"), Error);
  EXPECT_THAT(dir.list(), ElementsAre("a", "b"));
}

TEST(FailingFileSystem, CutsAWriteShort) {
  const TempDir dir;
  FailingFileSystem files({.call = 1, .written_fraction = 0.5});
  const auto file = files.create(dir / "a");
  EXPECT_THROW(file->append("abcdef"), Error);
  EXPECT_EQ(read_file(dir / "a"), "abc");
}

TEST(FailingFileSystem, ACrashLeavesNoChanceToCleanUp) {
  const TempDir dir;
  FailingFileSystem files({.call = 2, .kind = FaultKind::kCrash});
  EXPECT_THROW(write_file_durably(files, dir / "a", "abc"), SimulatedCrash);
  EXPECT_THAT(dir.list(), ElementsAre(".a.tmp"));
}

}  // namespace
}  // namespace gemma_sft
