#include "trainer/input_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <vector>

#include "configs/error.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

std::string message_of(const std::filesystem::path& file, ErrorKind kind) {
  try {
    each_input_row(file, [](const InputRow&) { return true; });
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  return "accepted";
}

TEST(InputRowsTest, GivesEachRowWithItsPlaceUntilItIsTold) {
  const TempDir dir;
  const auto file = dir.write("rows.jsonl", "{\"a\":1}\n \t\r\n[2]\r\n3");
  std::vector<std::string> lines, places;
  each_input_row(file, [&](const InputRow& row) {
    lines.push_back(row.line);
    places.push_back(row.place);
    return true;
  });
  EXPECT_THAT(lines, ElementsAre("{\"a\":1}", "[2]\r", "3"));
  EXPECT_THAT(places, ElementsAre(EndsWith("rows.jsonl:1"), EndsWith("rows.jsonl:3"), EndsWith("rows.jsonl:4")));
  int taken = 0;
  each_input_row(file, [&](const InputRow&) { return ++taken < 2; });
  EXPECT_EQ(taken, 2);
}

TEST(InputRowsTest, WhatIsNoRowIsRefusedWithItsPlace) {
  const TempDir dir;
  const auto refused = [&](const std::string& text) {
    const std::string path = dir.write("rows.jsonl", text).string();
    const std::string message = message_of(path, ErrorKind::kData);
    EXPECT_EQ(message.substr(0, path.size()), path);
    return message.substr(std::min(path.size(), message.size()));
  };
  EXPECT_EQ(refused("{}\n{\"a\":}\n"), ":2:6: row: expected a JSON value, found \"}\"");
  EXPECT_THAT(refused("{\"a\":\"\xff\"}"), HasSubstr(":1:7: row: expected valid UTF-8"));
  EXPECT_THAT(refused("{\"a\":" + std::string(100'000, '[')), HasSubstr("levels of nesting"));
  EXPECT_THAT(refused("{\"input_ids\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}"),
              HasSubstr("levels of nesting"));
  EXPECT_THAT(refused("{\"a\":1,\"a\":2}"), HasSubstr(":1:8: row: "));
  // The files that people give by mistake are known by name, as training rows are.
  EXPECT_THAT(refused("\xef\xbb\xbf{}"), HasSubstr(":1:1: row: expected JSON text, found a byte order mark"));
  EXPECT_THAT(refused("\x1f\x8b\x08"), HasSubstr("a gzip file; unpack it first (gunzip)"));
}

TEST(InputRowsTest, AGigabyteInOneLineIsRefusedUnread) {
  const TempDir dir;
  const auto file = dir.write("rows.jsonl", "{\"prompt\":\"");
  std::filesystem::resize_file(file, 1ull << 30);
  EXPECT_THAT(message_of(file, ErrorKind::kData),
              EndsWith(":1:1: row: expected at most 67108864 bytes in a line, found more"));
}

TEST(InputRowsTest, PipesAndFoldersAreNoFiles) {
  const TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(message_of(dir / "pipe", ErrorKind::kIo), HasSubstr("found a pipe"));
  EXPECT_THAT(message_of(dir.path(), ErrorKind::kIo), HasSubstr("found a folder"));
}

}  // namespace
}  // namespace gemma_sft
