#include "trainer/run/step_rows.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "configs/error.h"
#include "data/files/input_file.h"

namespace gemma_sft {

namespace fs = std::filesystem;

StepRows::StepRows(fs::path path, FileSystem& files)
    : path_(std::move(path)), files_(files), file_(files.open_append(path_)) {}

void StepRows::append(const std::string& row) { file_->append(row + "\n"); }

void StepRows::truncate_after(int64_t step, const std::string& or_with) {
  const InputFile regular(path_);  // a device or a pipe has no end to read to
  std::ifstream stream(path_, std::ios::binary);
  uint64_t kept = 0;
  std::string line;
  while (std::getline(stream, line)) {
    if (stream.eof()) break;  // no newline: torn by a crash
    const nlohmann::json row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object() || !row.contains("step") || !row["step"].is_number_integer()) break;
    if (row["step"].get<int64_t>() > step) break;
    if (row["step"].get<int64_t>() == step && !or_with.empty() && row.contains(or_with)) break;
    kept += line.size() + 1;
  }
  stream.close();
  std::error_code error;
  const uint64_t size = fs::file_size(path_, error);
  if (error) throw Error(ErrorKind::kIo, path_.string() + ": size: " + error.message());
  if (size == kept) return;
  file_->close();
  files_.truncate(path_, kept);
  file_ = files_.open_append(path_);
}

void StepRows::sync() { file_->sync(); }

}  // namespace gemma_sft
