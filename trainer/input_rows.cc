#include "trainer/input_rows.h"

#include <fmt/format.h>

#include "configs/error.h"
#include "data/files/input_file.h"
#include "data/files/line_reader.h"
#include "data/records/example_reader.h"

namespace gemma_sft {

void each_input_row(const std::filesystem::path& file, const std::function<bool(const InputRow&)>& take) {
  constexpr uint64_t kMostBytes = ExampleReader::kDefaultMaxLineBytes;
  LineReader reader(InputFile(file), kMostBytes);
  while (std::optional<Line> line = reader.next()) {
    InputRow row{std::move(line->text), fmt::format("{}:{}", file.string(), line->number), line->number};
    if (line->too_long) {
      throw Error(ErrorKind::kData,
                  fmt::format("{}:1: row: expected at most {} bytes in a line, found more", row.place, kMostBytes));
    }
    if (row.line.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (const auto problem = find_text_problem(row.line, file.string(), row.number)) {
      throw Error(ErrorKind::kData, problem->message);
    }
    if (!take(row)) return;
  }
}

void refuse_row(const InputRow& row, size_t byte, std::string_view field, std::string_view expected,
                std::string_view found) {
  throw Error(ErrorKind::kData,
              fmt::format("{}:{}: {}: expected {}, found {}", row.place, byte + 1, field, expected, found));
}

std::string require_text(const InputRow& row, const JsonValue& value, std::string_view field) {
  if (value.kind() == JsonKind::kString) {
    std::string text = value.string();
    if (!text.empty()) return text;
  }
  refuse_row(row, value.byte(), field, "a non-empty string", value.description());
}

}  // namespace gemma_sft
