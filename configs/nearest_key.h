// The known name that a mistyped one was probably meant to be.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gemma_sft {

struct Nearest {
  std::string name;    // empty only when there are no candidates
  bool close = false;  // near enough to ask "did you mean"
};

// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment) between the two texts.
int edit_distance(std::string_view a, std::string_view b);

// `candidates` are full paths such as training.batch_size, `key` is the full path that was written. A key at the wrong
// level is nearest to the candidate with the same last name. Ties go to the earlier candidate.
Nearest nearest_key(std::string_view key, const std::vector<std::string>& candidates);

// For plain words, such as the choices of a setting.
Nearest nearest_word(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace gemma_sft
