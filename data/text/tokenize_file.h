// A JSONL file -> one line {id, input_ids, loss_mask} a row: what `gemma-sft tokenize` writes. Memory is bounded by one
// row.
//
// Rows are told apart by their fields. Training examples of any format go through the chat template exactly as in
// training. A row with a `text` field ({id, text}) is tokenised as it stands: without template, nothing a target,
// literal.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "data/records/example.h"
#include "data/text/tokenizer.h"

namespace gemma_sft {

struct TokenizeOptions {
  bool add_bos = false;                            // text rows: <bos> in front
  bool parse_control_tokens = false;               // all rows: control tokens in the contents become their ids
  std::function<bool()> stop_requested = nullptr;  // polled per row: true ends early
};

struct TokenizeCounts {
  int64_t rows = 0;
  int64_t tokens = 0;
  int64_t target_tokens = 0;
  int64_t control_text_rows = 0;  // rows whose contents spell a control token
};

// The row as one line of format `tokens`, with its '\n'.
std::string token_row_line(const TokenizedExample& tokenized);

// `write` gets one line after the other, each with its '\n'; what it throws goes through. Throws Error(kData) with
// file:line:column at the first row that cannot be tokenised.
TokenizeCounts tokenize_file(const std::string& input, const Tokenizer& tokenizer, const TokenizeOptions& options,
                             const std::function<void(std::string_view)>& write);

}  // namespace gemma_sft
