#include "configs/error.h"

#include <gtest/gtest.h>

#include <utility>

namespace gemma_sft {
namespace {

TEST(Error, EachKindHasItsDocumentedExitCode) {
  const std::pair<ErrorKind, int> documented[] = {
      {ErrorKind::kUsage, 2},        {ErrorKind::kData, 3},      {ErrorKind::kAuthentication, 4},
      {ErrorKind::kQuota, 5},        {ErrorKind::kJobFailed, 6}, {ErrorKind::kJobCancelled, 7},
      {ErrorKind::kTimeout, 8},      {ErrorKind::kIo, 9},        {ErrorKind::kApi, 10},
      {ErrorKind::kOutOfMemory, 11}, {ErrorKind::kModel, 12},    {ErrorKind::kCheckpoint, 13},
      {ErrorKind::kNonFinite, 14},   {ErrorKind::kInternal, 70},
  };
  for (const auto& [kind, code] : documented) EXPECT_EQ(exit_code(kind), code);
}

TEST(Error, KeepsItsKindAndItsMessage) {
  const Error error(ErrorKind::kData, "train.jsonl:3:1: prompt: missing");
  EXPECT_EQ(error.kind(), ErrorKind::kData);
  EXPECT_STREQ(error.what(), "train.jsonl:3:1: prompt: missing");
}

}  // namespace
}  // namespace gemma_sft
