#include "trainer/input_rows.h"

#include <fmt/format.h>

#include "configs/error.h"
#include "data/files/input_file.h"
#include "data/files/json_text.h"
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
    if (const auto problem = find_json_problem(row.line)) {
      throw Error(ErrorKind::kData, fmt::format("{}:{}: row: expected {}, found {}", row.place, problem->byte + 1,
                                                problem->expected, problem->found));
    }
    if (!take(row)) return;
  }
}

}  // namespace gemma_sft
