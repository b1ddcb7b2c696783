#include "trainer/run/samples_file.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

StepRecord step(int64_t number, std::vector<std::vector<std::string>> ids) {
  StepRecord record;
  record.step = number;
  record.sample_ids = std::move(ids);
  return record;
}

TEST(SamplesFile, HasARowPerStepWithTheIdsOfEachMicroBatchInOrder) {
  const TempDir dir;
  SamplesFile samples(dir.path(), real_file_system());
  samples.on_step(step(1, {{"b", "a"}, {"c"}}));
  samples.on_step(step(2, {{"\"q\"\n\xff"}}));
  EXPECT_EQ(read_file(dir / "samples.jsonl"),
            "{\"step\":1,\"micro_batches\":[[\"b\",\"a\"],[\"c\"]]}\n"
            "{\"step\":2,\"micro_batches\":[[\"\\\"q\\\"\\n\xef\xbf\xbd\"]]}\n");
}

TEST(SamplesFile, ARunTakenBackToAStepLosesTheRowsAfterItAndATornOne) {
  const TempDir dir;
  {
    SamplesFile samples(dir.path(), real_file_system());
    for (int64_t number = 1; number <= 4; ++number) samples.on_step(step(number, {{std::to_string(number)}}));
  }
  std::ofstream(dir / "samples.jsonl", std::ios::app) << "{\"step\":5,\"mic";
  SamplesFile samples(dir.path(), real_file_system());
  samples.truncate_after(2);
  samples.on_step(step(3, {{"again"}}));
  EXPECT_EQ(read_file(dir / "samples.jsonl"),
            "{\"step\":1,\"micro_batches\":[[\"1\"]]}\n{\"step\":2,\"micro_batches\":[[\"2\"]]}\n"
            "{\"step\":3,\"micro_batches\":[[\"again\"]]}\n");
}

}  // namespace
}  // namespace gemma_sft
