#include "configs/model_name.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "configs/configured_path.h"
#include "configs/value_reader.h"

namespace gemma_sft {
namespace {

// Relatives of Gemma with another architecture, by what their hub ids contain.
constexpr std::pair<std::string_view, std::string_view> kRelatives[] = {
    {"gemma-3n", "Gemma 3n (per-layer embeddings, AltUp)"},
    {"gemma3n", "Gemma 3n (per-layer embeddings, AltUp)"},
    {"gemma-4", "Gemma 4 (other norms, head sizes and shared KV layers)"},
    {"gemma4", "Gemma 4 (other norms, head sizes and shared KV layers)"},
    {"paligemma", "PaliGemma (an image prefix with full attention)"},
    {"recurrentgemma", "RecurrentGemma (linear recurrences)"},
    {"t5gemma", "T5Gemma (encoder and decoder)"},
    {"embeddinggemma", "EmbeddingGemma (attention in both directions, no language head)"},
};

bool is_hub_character(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';
}

bool continues_a_word(const std::string& text, size_t at) {
  return at < text.size() && ((text[at] >= '0' && text[at] <= '9') || (text[at] >= 'a' && text[at] <= 'z'));
}

}  // namespace

bool can_be_hub_id(const std::string& name) {
  if (name.empty() || name.front() == '.' || name.front() == '/' || name.back() == '/') return false;
  if (std::count(name.begin(), name.end(), '/') > 1) return false;
  return std::all_of(name.begin(), name.end(), [](char c) { return is_hub_character(c) || c == '/'; });
}

std::string model_name_problem(const std::string& name, const std::filesystem::path& config_file) {
  if (!can_be_hub_id(name) || find_configured_path(name, config_file)) return "";
  std::string lower = name;
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  for (const auto& [part, what] : kRelatives) {
    const size_t at = lower.find(part);
    // gemma-4 is not part of gemma-4b or gemma-40.
    const bool ends_in_digit = part.back() == '4';
    if (at == std::string::npos || (ends_in_digit && continues_a_word(lower, at + part.size()))) {
      continue;
    }
    return fmt::format(
        "found {}, which is {}; that architecture is not supported, use a Gemma 1, "
        "1.1, 2 or 3 model such as google/gemma-3-1b-it",
        shown_text(name), what);
  }
  if (lower.find("gemma") == std::string::npos) {
    return fmt::format(
        "expected a Gemma model, found \"{}\", which is no folder and does not name "
        "one on the hub; use the id of a Gemma 1, 1.1, 2 or 3 model such as "
        "google/gemma-3-1b-it, or write a folder as ./{}",
        shown_text(name), shown_text(name));
  }
  return "";
}

}  // namespace gemma_sft
