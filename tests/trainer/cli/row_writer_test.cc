#include "trainer/cli/row_writer.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "configs/error.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

TEST(RowWriter, TheFileHasItsNameOnlyWhenItIsComplete) {
  const TempDir dir;
  const Output output({});
  RowWriter rows((dir / "out.jsonl").string(), output, real_file_system());
  rows.write("{\"a\":1}\n");
  EXPECT_FALSE(std::filesystem::exists(dir / "out.jsonl"));
  rows.finish();
  EXPECT_EQ(read_file(dir / "out.jsonl"), "{\"a\":1}\n");
  EXPECT_FALSE(std::filesystem::exists(dir / "out.jsonl.part"));
}

TEST(RowWriter, AStoppedCommandLeavesThePartAndTheOldFile) {
  const TempDir dir;
  dir.write("out.jsonl", "old\n");
  const Output output({});
  RowWriter rows((dir / "out.jsonl").string(), output, real_file_system());
  rows.write("new\n");
  rows.finish_part();
  EXPECT_EQ(read_file(dir / "out.jsonl"), "old\n");
  EXPECT_EQ(read_file(dir / "out.jsonl.part"), "new\n");
}

TEST(RowWriter, EveryFailureIsReportedAndNeverShowsAnIncompleteFile) {
  const std::string row(100'000, 'x');
  for (int64_t call = 0;; ++call) {
    const TempDir dir;
    FailingFileSystem files({.call = call, .written_fraction = 0.5});
    const Output output({});
    try {
      RowWriter rows((dir / "out.jsonl").string(), output, files);
      rows.write(row);
      rows.write("end\n");
      rows.finish();
      EXPECT_FALSE(files.has_failed());
      EXPECT_GT(call, 4);
      break;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
      if (std::filesystem::exists(dir / "out.jsonl")) {
        EXPECT_EQ(read_file(dir / "out.jsonl"), row + "end\n");
      }
    }
  }
}

TEST(RowWriter, ALinkStandsForTheFileItPointsAt) {
  const TempDir dir;
  dir.write("real.jsonl", "old\n");
  std::filesystem::create_symlink("real.jsonl", dir / "link.jsonl");
  std::filesystem::create_symlink("absent.jsonl", dir / "dangling.jsonl");
  const Output output({});
  RowWriter rows((dir / "link.jsonl").string(), output, real_file_system());
  rows.write("new\n");
  rows.finish();
  EXPECT_TRUE(std::filesystem::is_symlink(dir / "link.jsonl"));
  EXPECT_EQ(read_file(dir / "real.jsonl"), "new\n");
  EXPECT_THROW(RowWriter::require_place((dir / "dangling.jsonl").string()), Error);
}

TEST(RowWriter, AFolderOrAFileInNoFolderIsRefused) {
  const TempDir dir;
  EXPECT_THROW(RowWriter::require_place(dir.path().string()), Error);
  EXPECT_THROW(RowWriter::require_place((dir / "absent/out.jsonl").string()), Error);
  EXPECT_THROW(RowWriter::require_place(""), Error);
  EXPECT_NO_THROW(RowWriter::require_place((dir / "out.jsonl").string()));
  const std::string input = dir.write("in.jsonl", "rows").string();
  EXPECT_THROW(RowWriter::require_place(input, input), Error);
  EXPECT_THROW(RowWriter::require_place((dir / "." / "in.jsonl").string(), input), Error);
  EXPECT_NO_THROW(RowWriter::require_place((dir / "out.jsonl").string(), input));
  EXPECT_NO_THROW(RowWriter::require_place(std::nullopt));
}

TEST(RowWriter, ADeviceOrAPipeIsRefusedAndStaysWhatItIs) {
  const TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  for (const std::string& place : {std::string("/dev/null"), (dir / "pipe").string()}) {
    try {
      RowWriter::require_place(place);
      ADD_FAILURE() << place;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_EQ(error.what(), "--output " + place +
                                  ": is a pipe, socket or device, not a file; without --output the rows go to stdout");
    }
  }
}

}  // namespace
}  // namespace gemma_sft
