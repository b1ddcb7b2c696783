#include "trainer/run/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gemma_sft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

struct Screen {
  double now = 100;
  int columns = 120;
  std::vector<std::string> writes;

  ProgressOptions options(bool redraw) {
    ProgressOptions options;
    options.redraw = redraw;
    options.columns = [this] { return columns; };
    options.clock = [this] { return now; };
    options.write = [this](std::string_view text) { writes.emplace_back(text); };
    return options;
  }
  std::string all() const {
    std::string text;
    for (const std::string& one : writes) text += one;
    return text;
  }
};

StepRecord record(int64_t step) {
  return {.step = step, .loss = 2.34567, .learning_rate = 2e-5, .tokens_per_second = 1234.4, .device = "cpu"};
}

TEST(FormatDuration, GrowsCoarser) {
  EXPECT_EQ(format_duration(0), "0 s");
  EXPECT_EQ(format_duration(59.4), "59 s");
  EXPECT_EQ(format_duration(59.6), "1 min 00 s");
  EXPECT_EQ(format_duration(3599), "59 min 59 s");
  EXPECT_EQ(format_duration(3600), "1 h 00 min");
  EXPECT_EQ(format_duration(90000), "1 d 01 h");
  EXPECT_EQ(format_duration(-1), "?");
  EXPECT_EQ(format_duration(1.0 / 0.0), "?");
}

TEST(FormatCount, GroupsThousands) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(-1234567), "-1,234,567");
}

TEST(DescribeStep, TellsLossRateSpeedAndTimeLeft) {
  EXPECT_EQ(describe_step(record(12), 48, 65, 0, false, false),
            "step 12/48  25 %  loss 2.3457  rate 2.00e-05  1,234 tokens/s  1 min 05 s left");
  EXPECT_EQ(describe_step(record(48), 48, 0, 0, false, false),
            "step 48/48  100 %  loss 2.3457  rate 2.00e-05  1,234 tokens/s");
  EXPECT_EQ(describe_step(record(24), 48, 1, 0, true, true),
            "step 24/48  ##########..........  50 %  loss 2.3457  rate 2.00e-05  1,234 tokens/s  1 s left");
}

TEST(DescribeStep, NeverTakesMoreColumnsThanThereAre) {
  for (int columns = 12; columns < 120; ++columns) {
    for (const bool ascii : {false, true}) {
      const std::string line = describe_step(record(12), 48, 65, columns, true, ascii);
      const auto characters = std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; });
      EXPECT_LE(characters, columns) << line;
      EXPECT_THAT(line, StartsWith("step 12/48"));
    }
  }
  EXPECT_EQ(describe_step(record(12), 48, 65, 30, true, false), "step 12/48  loss 2.3457");
}

TEST(DescribeSave, TellsHowLongTrainingStoodStill) {
  EXPECT_EQ(describe_save({.step = 4, .folder = "f", .seconds = 1.234, .waited_seconds = 1.234}), "saved in 1.23 s");
  EXPECT_EQ(describe_save({.step = 4, .folder = "f", .seconds = 12.3, .waited_seconds = 0.8}),
            "saved in 12.30 s, for which training stood still 0.80 s");
}

TEST(Progress, ElsewhereThanOnATerminalThereIsAPlainLineNowAndThen) {
  Screen screen;
  Progress progress(screen.options(false));
  progress.on_start(0, 40);
  for (int64_t step = 1; step <= 40; ++step) {
    screen.now += 1;
    progress.on_step(record(step));
  }
  EXPECT_EQ(screen.writes.size(), 5u);  // steps 1, 11, 21, 31, 40
  EXPECT_THAT(screen.writes[1], StartsWith("step 11/40  27 %"));
  EXPECT_THAT(screen.writes[1], HasSubstr("29 s left\n"));
  EXPECT_THAT(screen.writes.back(), StartsWith("step 40/40"));
  EXPECT_THAT(screen.all(), Not(HasSubstr("\r")));
  EXPECT_THAT(screen.all(), Not(HasSubstr("\x1b")));
}

TEST(Progress, OnATerminalOneLineIsRedrawnAndMessagesStandAboveIt) {
  Screen screen;
  {
    Progress progress(screen.options(true));
    progress.on_start(0, 3);
    screen.now += 1;
    progress.on_step(record(1));
    progress.on_note("hello");
    screen.now += 0.01;
    progress.on_step(record(2));  // too soon after the last one
    ASSERT_EQ(screen.writes.size(), 3u);
    EXPECT_THAT(screen.writes[0], StartsWith("\r\x1b[Kstep 1/3"));
    EXPECT_EQ(screen.writes[1], "\r\x1b[K");
    EXPECT_EQ(screen.writes[2], "hello\n");
    screen.now += 1;
    progress.on_step(record(3));
    EXPECT_EQ(screen.writes.back(), "\n");
    progress.on_finish();
  }
  EXPECT_EQ(screen.writes.back(), "\n");  // nothing left to take off the screen
}

TEST(Progress, AnAbandonedLineIsTakenOffTheScreen) {
  Screen screen;
  {
    Progress progress(screen.options(true));
    progress.on_start(0, 3);
    progress.on_step(record(1));
  }
  EXPECT_EQ(screen.writes.back(), "\r\x1b[K");
}

TEST(Progress, QuietShowsWarningsOnly) {
  Screen screen;
  ProgressOptions options = screen.options(true);
  options.quiet = true;
  Progress progress(options);
  progress.on_start(0, 1);
  progress.on_step(record(1));
  progress.on_note("note");
  progress.on_eval({});
  progress.on_checkpoint({.step = 1, .folder = "folder", .seconds = 0.1, .waited_seconds = 0.1});
  progress.on_warning("careful");
  EXPECT_THAT(screen.writes, ElementsAre("warning: careful\n"));
}

TEST(Progress, TimeLeftComesFromTheWholeTimeBetweenSteps) {
  Screen screen;
  Progress progress(screen.options(false));
  progress.on_start(10, 20);
  screen.now += 2;  // of which the step itself may have been a part: an evaluation, a checkpoint
  progress.on_step(record(11));
  EXPECT_THAT(screen.writes.back(), HasSubstr("18 s left"));
}

TEST(Progress, MessagesSteerNoTerminal) {
  Screen screen;
  Progress progress(screen.options(true));
  progress.on_note("a\x1b[2J\nb\x9b");
  progress.on_warning("c\r");
  progress.on_checkpoint({.step = 1, .folder = "d\ne\x1b", .seconds = 1, .waited_seconds = 1});
  EXPECT_THAT(screen.all(), HasSubstr("a\\u001b[2J\nb\\x9b\n"));
  EXPECT_THAT(screen.all(), HasSubstr("c\\u000d\n"));
  EXPECT_THAT(screen.all(), HasSubstr(": d\\u000ae\\u001b\n"));
}

}  // namespace
}  // namespace gemma_sft
