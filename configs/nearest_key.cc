#include "configs/nearest_key.h"

#include <algorithm>

namespace gemma_sft {
namespace {

constexpr size_t kLongestKey = 200;  // of a hostile key only the beginning is compared

std::string_view last_name(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

std::string lower(std::string_view text) {
  std::string result(text.substr(0, kLongestKey));
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '-') c = '_';
  }
  return result;
}

bool is_close(int distance, size_t length) { return distance <= std::max<int>(1, static_cast<int>(length) / 3); }

// epochs is meant for num_epochs, although many letters are missing.
bool is_part(const std::string& a, const std::string& b) {
  return std::min(a.size(), b.size()) >= 4 && (a.find(b) != std::string::npos || b.find(a) != std::string::npos);
}

}  // namespace

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> before(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) previous[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    current[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int replaced = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        current[j] = std::min(current[j], before[j - 2] + 1);
      }
    }
    std::swap(before, previous);
    std::swap(previous, current);
  }
  return previous[b.size()];
}

Nearest nearest_key(std::string_view key, const std::vector<std::string>& candidates) {
  const std::string path = lower(key);
  const std::string name(last_name(path));
  const std::string section = path.substr(0, path.size() - name.size());
  Nearest nearest;
  int smallest = 0;
  for (const std::string& candidate : candidates) {
    const std::string candidate_name(last_name(candidate));
    const std::string candidate_section = candidate.substr(0, candidate.size() - candidate_name.size());
    int name_distance = edit_distance(name, candidate_name);
    if (is_part(name, candidate_name)) name_distance = std::min(name_distance, 2);
    const int wrong_section = candidate_section == section ? 0 : 1;
    const int by_name = name_distance + wrong_section;
    const int by_path = edit_distance(path, candidate);
    const int distance = std::min(by_name, by_path);
    if (nearest.name.empty() || distance < smallest) {
      smallest = distance;
      nearest.name = candidate;
      nearest.close = is_close(name_distance, std::max(name.size(), candidate_name.size())) ||
                      is_close(by_path, candidate_name.size());
    }
  }
  return nearest;
}

Nearest nearest_word(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string written = lower(word);
  Nearest nearest;
  int smallest = 0;
  for (const std::string& candidate : candidates) {
    const int distance = edit_distance(written, candidate);
    if (nearest.name.empty() || distance < smallest) {
      smallest = distance;
      nearest = {candidate, is_close(distance, std::max(written.size(), candidate.size()))};
    }
  }
  return nearest;
}

}  // namespace gemma_sft
