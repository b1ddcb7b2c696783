#include "data/files/line_reader.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

std::vector<Line> all_lines(LineReader& reader) {
  std::vector<Line> lines;
  while (auto line = reader.next()) lines.push_back(std::move(*line));
  return lines;
}

void expect_same(const Line& a, const Line& b) {
  EXPECT_EQ(a.byte, b.byte);
  EXPECT_EQ(a.number, b.number);
  EXPECT_EQ(a.bytes, b.bytes);
  EXPECT_EQ(a.too_long, b.too_long);
  EXPECT_EQ(a.text, b.text);
}

TEST(LineReader, GivesLinesWithTheirPlaces) {
  const TempDir dir;
  LineReader reader(InputFile(dir.write("f", "one\n\ntwo\r\nthree")), 100);
  const auto lines = all_lines(reader);
  ASSERT_EQ(lines.size(), 4u);
  expect_same(lines[0], {0, 1, 3, false, "one"});
  expect_same(lines[1], {4, 2, 0, false, ""});
  expect_same(lines[2], {5, 3, 4, false, "two\r"});
  expect_same(lines[3], {10, 4, 5, false, "three"});
}

TEST(LineReader, AnEmptyFileHasNoLinesAndAFinalNewlineStartsNone) {
  const TempDir dir;
  LineReader empty(InputFile(dir.write("a", "")), 100);
  EXPECT_TRUE(all_lines(empty).empty());
  LineReader newline(InputFile(dir.write("b", "\n")), 100);
  EXPECT_EQ(all_lines(newline).size(), 1u);
  LineReader both(InputFile(dir.write("c", "x\n")), 100);
  EXPECT_EQ(all_lines(both).size(), 1u);
}

TEST(LineReader, AnOverlongLineIsPassedOver) {
  const TempDir dir;
  LineReader reader(InputFile(dir.write("f", "ok\n123456\n12345\n1234567")), 5);
  const auto lines = all_lines(reader);
  ASSERT_EQ(lines.size(), 4u);
  expect_same(lines[1], {3, 2, 6, true, ""});
  expect_same(lines[2], {10, 3, 5, false, "12345"});
  expect_same(lines[3], {16, 4, 7, true, ""});
}

// Of a line beyond the limit nothing but its start is read, unless a line behind it is wanted.
TEST(LineReader, AnOverlongLineIsNotReadToItsEnd) {
  const TempDir dir;
  const std::filesystem::path path = dir.write("f", "ok\n");
  std::filesystem::resize_file(path, 1ull << 40);  // a line of a terabyte of NULs, sparse on the disk
  LineReader reader(InputFile(path), 1 << 20);
  EXPECT_EQ(reader.next()->text, "ok");
  const auto line = reader.next();
  EXPECT_TRUE(line->too_long);
  EXPECT_EQ(line->number, 2);
  EXPECT_LT(line->bytes, 4u << 20);
  EXPECT_TRUE(reader.at(3, 2).too_long);
}

// Lines of all lengths around the reader's block (1 MiB) and its random-access read (8 KiB), compared with a plain
// split.
TEST(LineReader, BlockBordersAreInvisible) {
  const TempDir dir;
  std::string text;
  std::vector<std::string> expected;
  for (const size_t base : {size_t{1} << 20, size_t{8} << 10, size_t{2} << 20}) {
    for (size_t length = base - 2; length <= base + 2; ++length) {
      expected.push_back(std::string(length, static_cast<char>('a' + expected.size() % 26)));
      expected.push_back("short");
      text += expected[expected.size() - 2] + "\nshort\n";
    }
  }
  for (const bool final_newline : {true, false}) {
    LineReader reader(InputFile(dir.write("f", final_newline ? text : text.substr(0, text.size() - 1))), 4 << 20);
    const auto lines = all_lines(reader);
    ASSERT_EQ(lines.size(), expected.size());
    uint64_t byte = 0;
    for (size_t i = 0; i < lines.size(); ++i) {
      expect_same(lines[i], {byte, static_cast<int64_t>(i) + 1, expected[i].size(), false, expected[i]});
      byte += expected[i].size() + 1;
    }
    for (size_t i = lines.size(); i-- > 0;) expect_same(reader.at(lines[i].byte, lines[i].number), lines[i]);
  }
}

TEST(LineReader, RandomAccessDoesNotMoveTheReader) {
  const TempDir dir;
  LineReader reader(InputFile(dir.write("f", "a\nb\nc\n")), 5);
  EXPECT_EQ(reader.next()->text, "a");
  EXPECT_EQ(reader.at(4, 3).text, "c");
  EXPECT_EQ(reader.at(0, 1).text, "a");
  EXPECT_EQ(reader.next()->text, "b");
}

}  // namespace
}  // namespace gemma_sft
