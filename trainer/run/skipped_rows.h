// skipped_rows.jsonl of a run folder: every row that was left out, in file order, however many there are. No torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "data/files/file_system.h"
#include "data/records/example_reader.h"

namespace gemma_sft {

inline constexpr const char* kSkippedRowsName = "skipped_rows.jsonl";

// Written as the rows are met (memory: 64 KiB) under a temporary name, which goes with the object unless `publish` was
// called. One thread. Throws Error(kIo) as the file layer does.
class SkippedRows {
 public:
  SkippedRows(std::filesystem::path run_folder, FileSystem& files);
  ~SkippedRows();
  SkippedRows(const SkippedRows&) = delete;
  SkippedRows& operator=(const SkippedRows&) = delete;

  void add(const RowProblem& row);
  // The file is there, on disk, when it returns; without any row there is none, not even that of an earlier start.
  void publish();

 private:
  void flush();

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  FileSystem& files_;
  std::unique_ptr<WritableFile> file_;  // from the first row on
  std::string lines_;                   // not yet written
};

}  // namespace gemma_sft
