// The contents of a tokenizer.model file (sentencepiece's ModelProto), read by a small checked parser of our own.
//
// Broken or hostile files are met here and not inside the sentencepiece library: it is only ever given what
// `serialize_sentencepiece_model` wrote, so nothing reaches it that was not checked.
// Wire format: https://protobuf.dev/programming-guides/encoding, fields: sentencepiece_model.proto.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gemma_sft {

// Values as in the file.
enum class PieceType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct Piece {
  std::string text;  // spaces stand as U+2581
  float score = 0;
  PieceType type = PieceType::kNormal;
};

struct SentencePieceModel {
  static constexpr uint64_t kMaxFileBytes = 64ull << 20;  // Gemma's largest is 5 MB
  static constexpr size_t kMaxPieces = 1 << 20;
  static constexpr size_t kMaxPieceBytes = 1024;  // the library's trie recurses once per byte of a piece

  std::vector<Piece> pieces;  // the index is the id
};

// `name` is used in messages. Throws Error(kModel) when the bytes are not a sentencepiece model, when sizes or piece
// types are absurd, or when the model is not of Gemma's kind (BPE, byte fallback, identity normalisation, no dummy
// prefix, white space kept): such a setting would be one that is not honoured.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& name);

// The canonical file of Gemma's kind with these pieces.
std::string serialize_sentencepiece_model(const SentencePieceModel& model);

// Byte value of a piece of type kByte ("<0x0A>" -> 10), -1 when the text is no such name.
int byte_of_piece(std::string_view text);

// True for pieces that steer the model rather than spell text: types control and unknown, and those user-defined pieces
// that have the form <...> or [...] and are no HTML tag, such as <start_of_turn>, <unused7>, <mask>, [@BOS@].
bool is_control_piece(const Piece& piece);

}  // namespace gemma_sft
