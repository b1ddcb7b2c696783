#include "trainer/run/step_rows.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "data/files/json_text.h"
#include "data/files/line_reader.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr uint64_t kMaxRowBytes = 64 << 20;
constexpr size_t kMaxDepth = 16;

// The row of a line that is one.
std::optional<json> find_row(const std::string& line) {
  if (find_json_problem(line, {.max_depth = kMaxDepth})) return std::nullopt;
  json row = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!row.is_object() || !row.contains("step") || !row["step"].is_number_integer()) return std::nullopt;
  return row;
}

}  // namespace

StepRows::StepRows(fs::path path, FileSystem& files)
    : path_(std::move(path)), files_(files), file_(files.open_append(path_)) {}

void StepRows::append(const std::string& row) { file_->append(row + "\n"); }

StepRows::Good StepRows::find_good(int64_t step, const std::string& or_with) const {
  LineReader lines(InputFile(path_), kMaxRowBytes);  // a device or a pipe has no end to read to
  Good good{.size = lines.file().size()};
  while (const std::optional<Line> line = lines.next()) {
    const uint64_t end = line->byte + line->bytes + 1;
    if (line->too_long || end > good.size) continue;  // no newline: torn by a crash
    const std::optional<json> row = find_row(line->text);
    if (!row) continue;
    const int64_t row_step = row->at("step").get<int64_t>();
    if (row_step > step || (row_step == step && !or_with.empty() && row->contains(or_with))) continue;
    good.end = end;
    good.last_step = row_step;
  }
  return good;
}

int64_t StepRows::truncate_after(int64_t step, const std::string& or_with) {
  const Good good = find_good(step, or_with);
  if (good.size != good.end) {
    file_->close();
    files_.truncate(path_, good.end);
    file_ = files_.open_append(path_);
  }
  return good.last_step;
}

int64_t StepRows::last_step() const { return find_good(std::numeric_limits<int64_t>::max(), "").last_step; }

void StepRows::sync() { file_->sync(); }

}  // namespace gemma_sft
