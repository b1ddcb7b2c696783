// Trains a tokenizer of Gemma's kind with the sentencepiece library: BPE, byte fallback, identity normalisation, no
// dummy prefix, white space kept, digits split, pad 0, eos 1, bos 2, unk 3, and as user-defined pieces <mask>,
// [multimodal], <unused0>.., <start_of_turn>, <end_of_turn>, runs of 1 to 31 newlines and of 2 to 31 spaces. Pieces
// never go past a space, as in Gemma (split_by_whitespace), so allow_whitespace_only_pieces would add nothing to the
// runs above and is off.
//
// One thread, no random numbers: the same corpus gives the same bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace gemma_sft {

struct TokenizerTraining {
  int64_t vocab_size = 8192;           // pieces in all: also the special ones and the 256 bytes
  int64_t unused_pieces = 8;           // <unused0> up to this many
  bool html_tags = false;              // the tags of Gemma's vocabulary as user-defined pieces
  double character_coverage = 0.9995;  // share of the corpus' characters that get a piece; the others become bytes
};

// The bytes of a tokenizer.model file; they name neither the corpus nor any path. Each text is cut into lines. Throws
// Error(kUsage) when the corpus yields fewer pieces than asked for or the vocabulary is too small for its alphabet,
// Error(kData) when the corpus is empty, not UTF-8 or has a word of more than 10,000 bytes.
std::string train_tokenizer(const std::vector<std::string>& texts, const TokenizerTraining& training);

// The same over text files, in the order given.
std::string train_tokenizer(const std::vector<std::filesystem::path>& files, const TokenizerTraining& training);

}  // namespace gemma_sft
