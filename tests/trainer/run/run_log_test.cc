#include "trainer/run/run_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;

TEST(RunLog, EachLineHasItsTimeAndLevelAndStartsAreAppended) {
  const TempDir dir;
  {
    RunLog log(dir.path(), real_file_system());
    log.on_start(0, 3);
    log.on_warning("{} is not a format");
  }
  {
    RunLog log(dir.path(), real_file_system());
    log.on_note("again");
    log.on_error("it ends");
  }
  const std::string text = read_file(dir / "run.log");
  const std::string time = "20[0-9][0-9]-[0-9]+-[0-9]+T[0-9:.]+Z ";
  EXPECT_THAT(text,
              MatchesRegex(time + "info: training from step 0 to 3\n" + time + "warning: \\{\\} is not a format\n" +
                           time + "info: again\n" + time + "error: it ends\n"));
}

TEST(RunLog, NothingIsMadeBeforeTheFirstLineNorByAnErrorAlone) {
  const TempDir dir;
  RunLog log(dir.path(), real_file_system());
  log.on_error("the folder belongs to another process");
  EXPECT_THAT(dir.list(), testing::ElementsAre());
}

TEST(RunLog, StepsAreThinnedOutButTheLastOneIsThere) {
  const TempDir dir;
  RunLog log(dir.path(), real_file_system());
  log.on_start(0, 1000);
  for (int64_t step = 1; step <= 1000; ++step) log.on_step({.step = step, .loss = 0.5});
  const std::string text = read_file(dir / "run.log");
  EXPECT_THAT(text, HasSubstr("step 1/1000: loss 0.500000"));
  EXPECT_THAT(text, HasSubstr("step 1000/1000: loss 0.500000"));
  EXPECT_LT(std::count(text.begin(), text.end(), '\n'), 10);
}

TEST(RunLog, AnErrorThatCannotBeWrittenIsNotReplacedByThat) {
  const TempDir dir;
  FailingFileSystem files({.call = 2, .kind = FaultKind::kFromNowOn});  // opened, one line written
  RunLog log(dir.path(), files);
  log.on_note("one");
  try {
    throw Error(ErrorKind::kNonFinite, "the loss is not finite");
  } catch (const Error& error) {
    log.on_error(error.what());
    EXPECT_TRUE(files.has_failed());
    EXPECT_EQ(error.kind(), ErrorKind::kNonFinite);
  }
}

TEST(RunLog, AFullDiskEndsTheRun) {
  for (const int64_t call : {0, 1, 2}) {
    const TempDir dir;
    FailingFileSystem files({.call = call});
    RunLog log(dir.path(), files);
    EXPECT_THROW(
        {
          log.on_note("one");
          log.on_note("two");
        },
        Error)
        << call;
  }
}

TEST(RunLog, MessagesSteerNoTerminal) {
  const TempDir dir;
  RunLog log(dir.path(), real_file_system());
  log.on_note("a\x1b[2J\nb\x9b");
  log.on_error("c\r");
  log.on_checkpoint({.step = 1, .folder = "d\ne\x1b", .seconds = 1, .waited_seconds = 1});
  const std::string text = read_file(dir / "run.log");
  EXPECT_THAT(text, HasSubstr("info: a\\u001b[2J\nb\\x9b\n"));
  EXPECT_THAT(text, HasSubstr("error: c\\u000d\n"));
  EXPECT_THAT(text, HasSubstr("checkpoint d\\u000ae\\u001b "));
}

}  // namespace
}  // namespace gemma_sft
