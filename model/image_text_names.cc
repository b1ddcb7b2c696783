#include "model/image_text_names.h"

namespace gemma_sft {
namespace {

constexpr std::string_view kTextPrefix = "model.";

}  // namespace

std::string image_text_name(const std::string& name) {
  return std::string(kImageTextPrefixes[0]).append(name.substr(kTextPrefix.size()));
}

std::string text_name(const std::string& name) {
  for (const std::string_view prefix : kImageTextPrefixes) {
    if (name.starts_with(prefix)) return std::string(kTextPrefix).append(name.substr(prefix.size()));
  }
  return name;
}

}  // namespace gemma_sft
