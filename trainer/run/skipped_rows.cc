#include "trainer/run/skipped_rows.h"

#include <fmt/format.h>

#include <utility>

#include "data/files/json_text.h"

namespace gemma_sft {
namespace {

constexpr size_t kBufferBytes = 64 << 10;

}  // namespace

SkippedRows::SkippedRows(std::filesystem::path run_folder, FileSystem& files)
    : path_(run_folder / kSkippedRowsName),
      temporary_(run_folder / fmt::format(".{}.tmp", kSkippedRowsName)),
      files_(files) {}

SkippedRows::~SkippedRows() {
  if (!file_) return;
  try {
    file_.reset();
    files_.remove(temporary_);
  } catch (const Error&) {
    // The next start truncates it.
  }
}

void SkippedRows::add(const RowProblem& row) {
  if (!file_) file_ = files_.create(temporary_);
  lines_ += fmt::format("{{\"file\":{},\"line\":{},\"column\":{},\"field\":{},\"problem\":{}}}\n",
                        json_quoted(row.place.file), row.place.line, row.column, json_quoted(row.field),
                        json_quoted(row.message));
  if (lines_.size() >= kBufferBytes) flush();
}

void SkippedRows::flush() {
  file_->append(lines_);
  lines_.clear();
}

void SkippedRows::publish() {
  if (!file_) {
    files_.remove(path_);
    return;
  }
  flush();
  file_->sync();
  file_->close();
  files_.rename(temporary_, path_);
  file_.reset();
  files_.sync_directory(path_.parent_path());
}

}  // namespace gemma_sft
