// SentencePiece ids of Gemma's vocabulary. sentencepiece's own types stay in the .cc.
//
// `<start_of_turn>` and friends are user-defined pieces, so plain sentencepiece turns such text inside user data into
// control ids. `encode_literal` never does: text that spells a control token is tokenised like any other text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gemma_sft {

// The file that a tokenizer is read from: `folder`/tokenizer.model, or where there is none `folder`/tokenizer.json; or
// the file itself. Throws Error(kModel) when there is neither.
std::filesystem::path tokenizer_file(const std::filesystem::path& folder_or_file);

// Immutable after loading, safe to share between threads.
class Tokenizer {
 public:
  // Reads tokenizer_file(...). Throws Error(kModel) when it is absent or broken, when it is not of Gemma's kind (see
  // sentencepiece_model.h and tokenizer_json_reader.h), when what the chat template needs (<bos>, <eos>,
  // <start_of_turn>, <end_of_turn>, "\n") are not single pieces, or when other files of the folder add tokens to
  // tokenizer.model (added_tokens.h).
  static std::shared_ptr<const Tokenizer> load(const std::filesystem::path& folder_or_file);
  ~Tokenizer();

  int64_t size() const;                // number of pieces
  size_t longest_piece_bytes() const;  // a text of n bytes has at least n / longest_piece_bytes() tokens
  int32_t bos_id() const;
  int32_t eos_id() const;
  int32_t pad_id() const;  // 0 when the vocabulary has no <pad>: padding is masked by length, never by id
  int32_t unk_id() const;
  int32_t start_of_turn_id() const;
  int32_t end_of_turn_id() const;

  // User text: tokenised as if the vocabulary had no control tokens (no piece for which is_control_piece says true), so
  // that text spelling one becomes ordinary pieces, exactly as a tokenizer without that piece would cut it. No BOS.
  // Memory: 100 bytes for each byte of the longest stretch without white space. Both throw Error(kData) when that is
  // longer than 512 KiB.
  std::vector<int32_t> encode_literal(std::string_view text) const;
  // As transformers reads text: control tokens in it become their ids. No BOS.
  std::vector<int32_t> encode_parsing_control_tokens(std::string_view text) const;
  // True when `text` spells a control token (what encode_literal and the other one differ on).
  bool spells_control_token(std::string_view text) const;

  // Control tokens spelled out, bytes joined, invalid UTF-8 -> U+FFFD. Ids past the vocabulary (a model may pad its
  // embedding with rows that have no piece) become nothing. Throws Error(kInternal) for a negative id, as piece() does.
  std::string decode(const std::vector<int32_t>& ids) const;
  std::string piece(int32_t id) const;  // as in the vocabulary: spaces stand as U+2581; "" past the vocabulary
  std::optional<int32_t> find_piece(std::string_view text) const;  // the id of exactly this piece
  bool is_control(int32_t id) const;  // <bos>, <eos>, <pad>, <unk>, <start_of_turn>, <end_of_turn>, <unusedN>, ...

  const std::string& model_sha256() const;  // of the file's bytes

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace gemma_sft
