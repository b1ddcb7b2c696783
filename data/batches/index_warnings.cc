#include "data/batches/index_warnings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "data/records/manifest.h"

namespace gemma_sft {
namespace {

std::string name_places(const std::string& file, const std::vector<uint32_t>& lines) {
  constexpr size_t kMostNamed = 5;
  std::string names;
  for (size_t i = 0; i < std::min(lines.size(), kMostNamed); ++i) {
    names += fmt::format("{}{}:{}", i == 0 ? "" : ", ", file, lines[i]);
  }
  return names + (lines.size() > kMostNamed ? ", ..." : "");
}

}  // namespace

std::vector<std::string> index_warnings(const DatasetIndex& index, const std::string& list_of_skipped) {
  std::vector<std::string> warnings;
  if (index.skipped_rows > 0) {
    const std::string list =
        list_of_skipped.empty() ? "" : fmt::format("; {} in the run folder lists them", list_of_skipped);
    warnings.push_back(fmt::format("{}: {} rows skipped (the first: {}){}", index.file, index.skipped_rows,
                                   index.skipped.front().message, list));
  }
  if (!index.truncated.empty()) {
    const auto& named = index.truncated_targets.empty() ? index.truncated : index.truncated_targets;
    warnings.push_back(fmt::format("{}: {} rows cut to model.max_seq_length, {} of them in their targets: {}",
                                   index.file, index.truncated.size(), index.truncated_targets.size(),
                                   name_places(index.file, named)));
  }
  if (!index.unread_fields.empty()) {
    std::string fields;
    for (const auto& [name, rows] : index.unread_fields) {
      fields += fmt::format("{}{} ({} rows)", fields.empty() ? "" : ", ", name, rows);
    }
    warnings.push_back(
        fmt::format("{}: fields that dataset.format: {} does not read, so that nothing in them is trained on: {}",
                    index.file, format_name(index.format), fields));
  }
  if (!index.control_text.empty()) {
    warnings.push_back(fmt::format("{}: {} rows spell a control token such as <start_of_turn> in their text: {}",
                                   index.file, index.control_text.size(), name_places(index.file, index.control_text)));
  }
  return warnings;
}

}  // namespace gemma_sft
