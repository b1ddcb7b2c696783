#include "trainer/run/skipped_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/testing/failing_file_system.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

RowProblem problem(int64_t line) {
  return {{"data/\"rows\".jsonl", line}, 7, "prompt", "data/\"rows\".jsonl:" + std::to_string(line) + ":7: prompt: \n"};
}

TEST(SkippedRows, ListsEveryRowHoweverManyThereAre) {
  constexpr int64_t kRows = 150'000;
  const TempDir dir;
  SkippedRows skipped(dir.path(), real_file_system());
  for (int64_t line = 1; line <= kRows; ++line) skipped.add(problem(line));
  EXPECT_THAT(dir.list(), ElementsAre(".skipped_rows.jsonl.tmp"));
  skipped.publish();
  EXPECT_THAT(dir.list(), ElementsAre("skipped_rows.jsonl"));
  std::ifstream stream(dir / kSkippedRowsName);
  int64_t lines = 0;
  for (std::string line; std::getline(stream, line);) {
    ++lines;
    if (lines != 1 && lines != kRows && lines % 10'000 != 0) continue;
    const nlohmann::json row = nlohmann::json::parse(line);
    EXPECT_EQ(row["file"], problem(lines).place.file);
    EXPECT_EQ(row["line"], lines);
    EXPECT_EQ(row["column"], 7);
    EXPECT_EQ(row["field"], "prompt");
    EXPECT_EQ(row["problem"], problem(lines).message);
  }
  EXPECT_EQ(lines, kRows);
}

TEST(SkippedRows, WithoutARowThereIsNoFileAndNoneOfAnEarlierStart) {
  const TempDir dir;
  dir.write("skipped_rows.jsonl", "{}\n");
  SkippedRows skipped(dir.path(), real_file_system());
  skipped.publish();
  EXPECT_THAT(dir.list(), IsEmpty());
}

TEST(SkippedRows, WhatWasNotPublishedGoesAndTheOldListStays) {
  const TempDir dir;
  dir.write("skipped_rows.jsonl", "old");
  {
    SkippedRows skipped(dir.path(), real_file_system());
    skipped.add(problem(1));
  }
  EXPECT_THAT(dir.list(), ElementsAre("skipped_rows.jsonl"));
}

}  // namespace
}  // namespace gemma_sft
