// What is sent is what the native engine would train on: the rows of the index as our tokenizer's ids and loss masks,
// cut and split as the index says, in file order.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "data/batches/dataset_index.h"
#include "data/files/file_system.h"
#include "data/text/tokenizer.h"
#include "trainer/tunix/job_client.h"

namespace gemma_sft {

inline constexpr const char* kJobDatasetName = "dataset.jsonl";

// Writes `run_folder`/dataset.jsonl durably, a row of format `tokens` a line. Memory: one row. Throws Error(kIo),
// Error(kData) when the data file has changed since it was indexed.
DatasetUpload write_job_dataset(const DatasetIndex& index, const std::shared_ptr<const Tokenizer>& tokenizer,
                                bool parse_control_tokens, const std::filesystem::path& run_folder, FileSystem& files);

}  // namespace gemma_sft
