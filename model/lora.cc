#include "model/lora.h"

#include <cmath>

namespace gemma_sft {
namespace {

bool matches_glob(const char* text, const char* pattern) {
  const char* star = nullptr;
  const char* resume = nullptr;
  while (*text != '\0') {
    if (*pattern == '*') {
      star = pattern++;
      resume = text;
    } else if (*pattern == '?' || *pattern == *text) {
      ++pattern;
      ++text;
    } else if (star != nullptr) {
      pattern = star + 1;
      text = ++resume;
    } else {
      return false;
    }
  }
  while (*pattern == '*') ++pattern;
  return *pattern == '\0';
}

}  // namespace

double LoraOptions::scale() const {
  return alpha / (rslora ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
}

bool matches_target(const std::string& path, const std::string& pattern) {
  if (path == pattern) return true;
  if (pattern.empty()) return false;
  const std::string tail = "." + pattern;
  if (path.size() > tail.size() && path.compare(path.size() - tail.size(), tail.size(), tail) == 0) return true;
  return matches_glob(path.c_str(), pattern.c_str());
}

}  // namespace gemma_sft
