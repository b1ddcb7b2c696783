// One row of a data file as the model is given it: what `gemma-sft explain` shows. The row goes the way of training:
// reader, template, tokenizer, truncation, packer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/batches/dataset_index.h"
#include "data/records/example.h"
#include "data/text/tokenizer.h"

namespace gemma_sft {

struct ExplainedToken {
  int64_t position = 0;
  int32_t id = 0;
  std::string piece;     // as in the vocabulary
  bool trained = false;  // its mask: it is a target
  int64_t target = -1;   // the id that this position is to predict, -1: none
};

struct RowExplanation {
  std::string id;
  RowPlace place;
  std::string text;  // the tokens shown, decoded: the rendered conversation, control tokens spelled out
  std::vector<ExplainedToken> tokens;
  int64_t target_tokens = 0;
  int64_t cut_tokens = 0;  // cut off by dataset.on_long: truncate
  bool spells_control_token = false;
  std::vector<std::string> unread_fields;  // as in Example
  std::string problem;                     // why training would refuse the row, its length apart; "": it would not
};

// `row` counts the rows of the file (blank lines are none) from 1. A row longer than max_seq_length is shown cut when
// on_long is truncate, else whole: the caller says what becomes of it. Throws Error(kData) when there is no such row or
// when its fields are wrong; of `options` format, max_seq_length, on_long, parse_control_tokens and vocab_size are
// used.
RowExplanation explain_row(const std::string& file, int64_t row, std::shared_ptr<const Tokenizer> tokenizer,
                           const IndexOptions& options);

// For people: a head line, the text, and a table of the tokens in UTF-8. Ends with a newline.
std::string to_text(const RowExplanation& explanation);

// For programs: one JSON object in one line, without a newline.
std::string to_json(const RowExplanation& explanation);

}  // namespace gemma_sft
