// tokenizer.json back to sentencepiece's terms, for folders that have no tokenizer.model: transformers 5 saves only the
// former.
//
// tokenizers has a ranked list of pairs that may be joined, sentencepiece one score a piece and joins any two
// neighbours that make a piece. So a tokenizer.json can be rebuilt when it was made of a sentencepiece model: when each
// piece's pairs are exactly the ways to cut it into two pieces, and stand together in the ranking. Both are checked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "data/text/sentencepiece_model.h"

namespace gemma_sft {

inline constexpr uint64_t kMaxTokenizerJsonBytes = 64ull << 20;  // Gemma 3's has 33 MB

// What the sentencepiece model gives for any text is what the rebuilt one gives. The pieces and types are those of the
// tokenizer.model that `json` was made of, and so are the scores where that model was trained by sentencepiece: minus
// the rank of the piece. Of user-defined pieces only those come back that stand in added_tokens; the others are joined
// from their pairs, as tokenizers does.
//
// Gemma 3's <image_soft_token> past the vocabulary is left out where nothing follows it: no tokenizer.model has it.
// Other tokens added there become pieces, special ones control tokens.
//
// `name` is used in messages. Throws Error(kModel) "NAME:line:column: ..." when `json` is no tokenizer.json, and when
// it asks for anything that is not honoured. Padding, truncation, version and the post-processor change no text's ids
// and are not looked at, except that a post-processor must be of a kind that only adds special tokens.
SentencePieceModel read_tokenizer_json(std::string_view json, const std::string& name);

}  // namespace gemma_sft
