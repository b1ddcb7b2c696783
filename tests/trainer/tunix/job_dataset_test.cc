#include "trainer/tunix/job_dataset.h"

#include <gtest/gtest.h>

#include "data/batches/batch_stream.h"
#include "data/files/sha256.h"
#include "tests/data/batches/rows_file.h"
#include "tests/data/text/tiny_tokenizer.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

// Two epochs of batches as text: ids, targets, positions and rows.
std::string batches_of(const std::shared_ptr<const DatasetIndex>& index) {
  BatchStream stream(index, tiny_tokenizer(), {.batch_size = 3, .accumulation = 2});
  std::string text;
  for (StepBatches step = stream.next(); step.cursor.epoch < 2; step = stream.next()) {
    for (const PackedBatch& batch : step.micro_batches) {
      for (const auto* list : {&batch.input_ids, &batch.targets, &batch.positions, &batch.document_offsets}) {
        for (const int64_t number : *list) text += std::to_string(number) + " ";
      }
      for (const std::string& id : batch.row_ids) text += id + "\n";
    }
  }
  return text;
}

TEST(JobDataset, WhatIsSentGivesTheBatchesThatTheNativeEngineTrainsOn) {
  std::string rows;
  for (int i = 0; i < 23; ++i) {
    rows += training_row(std::to_string(i), "prompt " + std::to_string(i * 7919), std::string(1 + (i * 5) % 40, 'a'));
  }
  const RowsFile file(rows);
  IndexOptions options;
  options.max_seq_length = 40;
  options.on_long = OnLong::kTruncate;
  options.validation_fraction = 0.2;
  const auto native = std::make_shared<DatasetIndex>(index_dataset(file.path(), *tiny_tokenizer(), options));
  ASSERT_FALSE(native->truncated.empty());
  ASSERT_FALSE(native->validation.empty());
  const TempDir dir;
  const DatasetUpload upload = write_job_dataset(*native, tiny_tokenizer(), false, dir.path(), real_file_system());
  EXPECT_EQ(upload.rows, static_cast<int64_t>(native->train.size()));
  EXPECT_EQ(upload.bytes, std::filesystem::file_size(upload.file));
  EXPECT_EQ(upload.sha256, sha256_file(upload.file));
  IndexOptions tokens;
  tokens.format = DataFormat::kTokens;
  const auto sent = std::make_shared<DatasetIndex>(index_dataset(upload.file.string(), *tiny_tokenizer(), tokens));
  EXPECT_EQ(batches_of(sent), batches_of(native));
}

}  // namespace
}  // namespace gemma_sft
