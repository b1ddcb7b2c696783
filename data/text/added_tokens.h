// Tokens that transformers adds to the vocabulary of a tokenizer.model, which does not know them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace gemma_sft {

// Gemma 3's place for an image, which no text spells: its tokenizer.json has it past the vocabulary, its
// tokenizer.model has not.
inline constexpr std::string_view kImageToken = "<image_soft_token>";

struct AddedTokens {
  std::filesystem::path file;
  std::string first;  // the text of one
  size_t count = 0;
};

// Those with ids from `pieces` on in the folder's tokenizer.json (its list of them stands ahead of the vocabulary, as
// the tokenizers library writes it) or added_tokens.json, but for kImageToken. nullopt: there are none. A file that
// says nothing readable is passed over: it is carried, not used. Throws Error as has_folder_entry.
std::optional<AddedTokens> find_added_tokens(const std::filesystem::path& folder, size_t pieces);

}  // namespace gemma_sft
