// One YAML value -> the value of a setting, or what is wrong with it.
#pragma once

#include <cstddef>
#include <string>

#include "configs/settings.h"
#include "configs/yaml_tree.h"

namespace gemma_sft {

struct ReadValue {
  Value value;
  std::string problem;  // "expected ..., found ...; remedy"; empty: `value` holds
};

ReadValue read_value(const Setting& setting, const YamlNode& node);

// What stands there, for messages: `"four"`, `0`, `a list`, `nothing`. Long text is cut and secrets are masked.
std::string found_text(const YamlNode& node);

// Text of the user or of a file for messages: one line, secrets masked, control characters escaped, long text cut.
std::string shown_text(const std::string& text, size_t longest = 80);
std::string shown_name(const std::string& name);  // of a file, whole: file systems take 255 bytes

}  // namespace gemma_sft
