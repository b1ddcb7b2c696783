// What the model trains on: all tokens of a micro-batch in one line, with document offsets. Plain vectors, no torch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gemma_sft {

// Tokens of one micro-batch. Documents lie one after the other; `document_offsets` has documents + 1 entries and ends
// with the number of tokens. Attention never crosses a document; positions restart at 0 in each.
//
// Padded layout (`padded_length` > 0): every document takes exactly `padded_length` places and document b starts at
// b * padded_length; the places past `document_lengths[b]` hold the pad id, are never targets and, being to the right
// of every real token, are never seen by one under the causal mask.
struct PackedBatch {
  std::vector<int64_t> input_ids;         // [tokens]
  std::vector<int64_t> targets;           // [tokens]: the token that follows in the same document, or -1: no target
  std::vector<int64_t> positions;         // [tokens]
  std::vector<int64_t> document_offsets;  // [documents + 1]
  std::vector<int64_t> document_lengths;  // [documents]: real tokens
  int64_t padded_length = 0;              // 0: packed
  int64_t target_tokens = 0;              // number of targets >= 0
  int64_t real_tokens = 0;                // without padding
  std::vector<std::string> row_ids;       // [documents]
  std::vector<int64_t> row_lines;         // [documents]: line in the data file
  std::string file;                       // the data file, for messages

  int64_t tokens() const { return static_cast<int64_t>(input_ids.size()); }
  int64_t documents() const { return static_cast<int64_t>(document_lengths.size()); }
};

}  // namespace gemma_sft
