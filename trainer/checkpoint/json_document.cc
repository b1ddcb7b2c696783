#include "trainer/checkpoint/json_document.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/json_text.h"
#include "data/files/utf8.h"

namespace gemma_sft {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxBytes = 1 << 20;
constexpr size_t kMaxDepth = 16;

}  // namespace

json read_json_document(const std::filesystem::path& path) {
  const std::string text = read_file(path, kMaxBytes);
  if (const auto problem = find_json_problem(text, {.max_depth = kMaxDepth})) {
    throw Error(ErrorKind::kCheckpoint, fmt::format("{}: byte {}: expected {}, found {}", path.filename().string(),
                                                    problem->byte, problem->expected, problem->found));
  }
  return json::parse(text);
}

int64_t whole_number(const json& value, const char* field, int64_t least) {
  const bool fits =
      value.is_number_unsigned() ? value.get<uint64_t>() <= uint64_t{INT64_MAX} : value.is_number_integer();
  if (fits && value.get<int64_t>() >= least) return value.get<int64_t>();
  throw Error(ErrorKind::kCheckpoint, fmt::format("{}: expected a whole number from {} on, found {}", field, least,
                                                  quoted_excerpt(value.dump(), 40)));
}

}  // namespace gemma_sft
