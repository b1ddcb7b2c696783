// What the settings of other trainers (transformers, TRL, PEFT, axolotl) are called here. They are unknown keys all the
// same; this only lets the message name the right one, where the nearest spelling would be another.
#pragma once

#include <span>
#include <string_view>

namespace gemma_sft {

struct OtherTrainersKey {
  std::string_view name;     // in lower case, with underscores, without its section
  std::string_view setting;  // what it is here; empty: there is none
  std::string_view remedy;   // what to do where it is not one setting
};

std::span<const OtherTrainersKey> other_trainers_keys();  // in order of their names

// `key`: a path or a name as it was written. nullptr: no name of another trainer.
const OtherTrainersKey* find_other_trainers_key(std::string_view key);

}  // namespace gemma_sft
