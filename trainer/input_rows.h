// The rows of a JSON-lines file that a command answers (generate --input, eval --input), read as strictly as training
// rows: UTF-8, valid JSON of bounded depth, lines of bounded length. No torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "data/files/json_text.h"

namespace gemma_sft {

struct InputRow {
  std::string line;    // one JSON value, checked
  std::string place;   // "rows.jsonl:3"
  int64_t number = 0;  // of the line, from 1
};

// Gives each line that is not blank to `take`, until that says false. Throws Error(kData) with file:line:column,
// Error(kIo) for a file that is none.
void each_input_row(const std::filesystem::path& file, const std::function<bool(const InputRow&)>& take);

// Throws Error(kData): "file:line:column: field: expected ..., found ...", with the column of `byte` (from 0).
[[noreturn]] void refuse_row(const InputRow& row, size_t byte, std::string_view field, std::string_view expected,
                             std::string_view found);

// A text that must not be empty, or Error(kData).
std::string require_text(const InputRow& row, const JsonValue& value, std::string_view field);

}  // namespace gemma_sft
