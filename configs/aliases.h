// Keys of tunix-rt's other training files: what each one means here. Every one maps to a setting, has no effect (and
// says why), or is refused for some values. load_config, `config explain` and the table in README.md come from this
// list.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "configs/settings.h"

namespace gemma_sft {

struct Alias {
  std::string key;
  std::string target = {};  // the setting it stands for; empty: it has no effect
  std::string why = {};     // why it has no effect, as the end of "has no effect here: ..."
  // Other words for the target's values, e.g. float32 -> fp32. Values that are not listed pass unchanged.
  std::vector<std::pair<std::string, std::string>> translations = {};
  std::vector<RefusedValue> refused = {};
  std::vector<std::string> accepted = {};  // of a key without effect: the only values let through; empty: all
};

const std::vector<Alias>& aliases();
const Alias* find_alias(std::string_view key);

}  // namespace gemma_sft
