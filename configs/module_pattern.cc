#include "configs/module_pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

namespace gemma_sft {
namespace {

// The layers of a block, below "model.layers.N.".
constexpr std::array<std::string_view, 7> kLinearLayers = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                           "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                                           "mlp.down_proj"};

bool matches_glob(std::string_view text, std::string_view pattern) {
  size_t at = 0, in_pattern = 0;
  size_t star = std::string_view::npos, resume = 0;
  while (at < text.size()) {
    const char next = in_pattern < pattern.size() ? pattern[in_pattern] : '\0';
    if (next == '*') {
      star = in_pattern++;
      resume = at;
    } else if (in_pattern < pattern.size() && (next == '?' || next == text[at])) {
      ++in_pattern;
      ++at;
    } else if (star != std::string_view::npos) {
      in_pattern = star + 1;
      at = ++resume;
    } else {
      return false;
    }
  }
  while (in_pattern < pattern.size() && pattern[in_pattern] == '*') ++in_pattern;
  return in_pattern == pattern.size();
}

// Numbers of blocks that the pattern can mean: 0, and what each run of digits and ? stands for.
std::set<std::string> possible_blocks(const std::string& pattern) {
  std::set<std::string> blocks = {"0"};
  for (size_t at = 0; at < pattern.size();) {
    const size_t end = std::min(pattern.find_first_not_of("0123456789?", at), pattern.size());
    std::string run = pattern.substr(at, end - at);
    for (size_t i = 0; i < run.size(); ++i) {
      if (run[i] == '?') run[i] = i == 0 && run.size() > 1 ? '1' : '0';
    }
    if (!run.empty() && run.size() <= 4) blocks.insert(run);
    at = end + 1;
  }
  return blocks;
}

bool means_a_linear_layer(const std::string& pattern) {
  for (const std::string& block : possible_blocks(pattern)) {
    for (const std::string_view layer : kLinearLayers) {
      if (matches_target(fmt::format("model.layers.{}.{}", block, layer), pattern)) return true;
    }
  }
  return false;
}

}  // namespace

bool matches_target(std::string_view path, std::string_view pattern) {
  if (path == pattern) return true;
  if (pattern.empty()) return false;
  if (path.ends_with(pattern) && path[path.size() - pattern.size() - 1] == '.') return true;
  return matches_glob(path, pattern);
}

std::string target_problem(const std::string& pattern) {
  if (means_a_linear_layer(pattern)) return "";
  if (pattern == "all-linear") return "leave lora.target_modules out, all linear layers are its default";
  return "it is no linear layer of a Gemma, which has q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj "
         "in every block";
}

}  // namespace gemma_sft
