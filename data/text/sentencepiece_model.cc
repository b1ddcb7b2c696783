#include "data/text/sentencepiece_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "configs/error.h"
#include "data/files/pickle.h"
#include "data/files/utf8.h"

namespace gemma_sft {

namespace {

enum class Wire : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  uint32_t number = 0;
  Wire wire = Wire::kVarint;
  uint64_t varint = 0;
  uint32_t fixed32 = 0;
  std::string_view bytes;
};

// Fields of one message, in order. Unknown fields are read over, as the format wants.
class FieldReader {
 public:
  FieldReader(std::string_view bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  std::optional<Field> next() {
    if (at_ == bytes_.size()) return std::nullopt;
    const uint64_t tag = varint();
    Field field;
    field.number = static_cast<uint32_t>(tag >> 3);
    field.wire = static_cast<Wire>(tag & 7);
    if (tag >> 32 != 0 || field.number == 0) fail("a field number out of range");
    switch (field.wire) {
      case Wire::kVarint: field.varint = varint(); break;
      case Wire::kFixed64: take(8); break;
      case Wire::kFixed32: {
        const std::string_view raw = take(4);
        for (int i = 3; i >= 0; --i) field.fixed32 = field.fixed32 << 8 | static_cast<unsigned char>(raw[i]);
        break;
      }
      case Wire::kBytes: field.bytes = take(varint()); break;
      default: fail("an unknown wire type");
    }
    return field;
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw Error(ErrorKind::kModel,
                fmt::format("{}: is not a sentencepiece model: {} at byte {} of a message; copy the file again", name_,
                            what, at_));
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == bytes_.size()) fail("it ends inside a number");
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    fail("a number of more than 64 bits");
  }

  std::string_view take(uint64_t size) {
    if (size > bytes_.size() - at_) fail("a field longer than the file");
    const std::string_view taken = bytes_.substr(at_, size);
    at_ += size;
    return taken;
  }

  std::string_view bytes_;
  const std::string& name_;
  size_t at_ = 0;
};

// Settings that change ids; the defaults are those of sentencepiece_model.proto.
struct Settings {
  uint64_t model_type = 1;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  std::string normalizer;
  bool has_charsmap = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

void require_wire(const Field& field, Wire wire, const char* what, const std::string& name) {
  if (field.wire != wire) {
    throw Error(ErrorKind::kModel, fmt::format("{}: is not a sentencepiece model: {} has wire type {}, expected {}; "
                                               "copy the file again",
                                               name, what, static_cast<int>(field.wire), static_cast<int>(wire)));
  }
}

Piece parse_piece(std::string_view bytes, size_t id, const std::string& name) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorKind::kModel, fmt::format("{}: piece {}: {}; the file is broken, copy it again", name, id, what));
  };
  Piece piece;
  FieldReader reader(bytes, name);
  while (const std::optional<Field> field = reader.next()) {
    if (field->number == 1) {
      require_wire(*field, Wire::kBytes, "a piece's text", name);
      if (field->bytes.size() > SentencePieceModel::kMaxPieceBytes) {
        fail(
            fmt::format("{} bytes long, expected at most {}", field->bytes.size(), SentencePieceModel::kMaxPieceBytes));
      }
      piece.text = field->bytes;
    } else if (field->number == 2) {
      require_wire(*field, Wire::kFixed32, "a piece's score", name);
      std::memcpy(&piece.score, &field->fixed32, sizeof piece.score);
    } else if (field->number == 3) {
      require_wire(*field, Wire::kVarint, "a piece's type", name);
      if (field->varint < 1 || field->varint > 6) fail(fmt::format("type {}, expected 1 to 6", field->varint));
      piece.type = static_cast<PieceType>(field->varint);
    }
  }
  if (piece.text.empty()) fail("empty text");
  if (find_utf8_problem(piece.text)) fail("text is not UTF-8");
  if (!std::isfinite(piece.score)) fail("score is not a finite number");
  if (piece.type == PieceType::kByte && byte_of_piece(piece.text) < 0) {
    fail(fmt::format("byte piece named {}, expected <0x00> to <0xFF>", quoted_excerpt(piece.text)));
  }
  return piece;
}

void parse_trainer(std::string_view bytes, const std::string& name, Settings& settings) {
  FieldReader reader(bytes, name);
  while (const std::optional<Field> field = reader.next()) {
    if (field->number != 3 && field->number != 24 && field->number != 35) continue;
    require_wire(*field, Wire::kVarint, "a trainer setting", name);
    if (field->number == 3) settings.model_type = field->varint;
    if (field->number == 24) settings.whitespace_as_suffix = field->varint != 0;
    if (field->number == 35) settings.byte_fallback = field->varint != 0;
  }
}

void parse_normalizer(std::string_view bytes, const std::string& name, Settings& settings) {
  FieldReader reader(bytes, name);
  while (const std::optional<Field> field = reader.next()) {
    if (field->number == 1 || field->number == 2) {
      require_wire(*field, Wire::kBytes, "a normaliser setting", name);
      if (field->number == 1) settings.normalizer = field->bytes;
      if (field->number == 2) settings.has_charsmap = !field->bytes.empty();
    } else if (field->number >= 3 && field->number <= 5) {
      require_wire(*field, Wire::kVarint, "a normaliser setting", name);
      if (field->number == 3) settings.add_dummy_prefix = field->varint != 0;
      if (field->number == 4) settings.remove_extra_whitespaces = field->varint != 0;
      if (field->number == 5) settings.escape_whitespaces = field->varint != 0;
    }
  }
}

void require_gemma_settings(const Settings& settings, const std::string& name) {
  const auto refuse = [&](const std::string& what) {
    throw Error(
        ErrorKind::kModel,
        fmt::format("{}: {} is not honoured: Gemma's tokenizer is BPE with byte fallback, identity "
                    "normalisation, no dummy prefix and white space kept; use the tokenizer.model of a Gemma model",
                    name, what));
  };
  static constexpr std::array<const char*, 5> kTypes = {"", "unigram", "bpe", "word", "char"};
  if (settings.model_type != 2) {
    refuse(fmt::format("model_type {}",
                       settings.model_type < kTypes.size() ? kTypes[settings.model_type] : std::string("?")));
  }
  if (!settings.byte_fallback) refuse("byte_fallback: false");
  if (settings.whitespace_as_suffix) refuse("treat_whitespace_as_suffix: true");
  if (settings.has_charsmap) refuse(fmt::format("the normalisation {}", quoted_excerpt(settings.normalizer)));
  if (settings.add_dummy_prefix) refuse("add_dummy_prefix: true");
  if (settings.remove_extra_whitespaces) refuse("remove_extra_whitespaces: true");
  if (!settings.escape_whitespaces) refuse("escape_whitespaces: false");
}

void put_varint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

void put_number(std::string& out, uint32_t field, uint64_t value) {
  put_varint(out, field << 3 | static_cast<uint32_t>(Wire::kVarint));
  put_varint(out, value);
}

void put_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  put_varint(out, field << 3 | static_cast<uint32_t>(Wire::kBytes));
  put_varint(out, bytes.size());
  out.append(bytes);
}

void put_float(std::string& out, uint32_t field, float value) {
  put_varint(out, field << 3 | static_cast<uint32_t>(Wire::kFixed32));
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<char>(bits >> (8 * i)));
}

bool is_html_tag(std::string_view text) {
  // Those of Gemma's vocabulary and their kin: tags that people write in text.
  static const std::unordered_set<std::string_view> kTags = {
      "a",    "b",     "blockquote", "body",   "br",     "caption", "code", "dd",    "del",   "div", "dl",
      "dt",   "em",    "h1",         "h2",     "h3",     "h4",      "h5",   "h6",    "head",  "hr",  "html",
      "i",    "img",   "ins",        "kbd",    "li",     "mark",    "ol",   "p",     "pre",   "q",   "s",
      "samp", "small", "span",       "strike", "strong", "sub",     "sup",  "table", "tbody", "td",  "tfoot",
      "th",   "thead", "title",      "tr",     "tt",     "u",       "ul",   "var"};
  text.remove_prefix(1);
  text.remove_suffix(1);
  if (!text.empty() && text.front() == '/') text.remove_prefix(1);
  return kTags.contains(text);
}

}  // namespace

int byte_of_piece(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    if (c >= '0' && c <= '9') {
      value = value * 16 + (c - '0');
    } else if (c >= 'A' && c <= 'F') {
      value = value * 16 + (c - 'A' + 10);
    } else {
      return -1;
    }
  }
  return value;
}

bool is_control_piece(const Piece& piece) {
  if (piece.type == PieceType::kControl || piece.type == PieceType::kUnknown) return true;
  if (piece.type != PieceType::kUserDefined || piece.text.size() < 3) return false;
  const char first = piece.text.front();
  const char last = piece.text.back();
  if (first == '[' && last == ']') return true;
  return first == '<' && last == '>' && !is_html_tag(piece.text);
}

SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& name) {
  if (const std::string pickle = recognise_pickle(bytes); !pickle.empty()) {
    throw Error(ErrorKind::kModel, name + ": " + pickle);
  }
  if (bytes.size() > SentencePieceModel::kMaxFileBytes) {
    throw Error(ErrorKind::kModel,
                fmt::format("{}: {} bytes, expected at most {}: this is not a tokenizer of Gemma's kind", name,
                            bytes.size(), SentencePieceModel::kMaxFileBytes));
  }
  SentencePieceModel model;
  Settings settings;
  FieldReader reader(bytes, name);
  while (const std::optional<Field> field = reader.next()) {
    if (field->number < 1 || field->number > 3) continue;
    require_wire(*field, Wire::kBytes, "a message", name);
    if (field->number == 1) {
      if (model.pieces.size() == SentencePieceModel::kMaxPieces) {
        throw Error(ErrorKind::kModel, fmt::format("{}: more than {} pieces: this is not a tokenizer of Gemma's kind",
                                                   name, SentencePieceModel::kMaxPieces));
      }
      model.pieces.push_back(parse_piece(field->bytes, model.pieces.size(), name));
    } else if (field->number == 2) {
      parse_trainer(field->bytes, name, settings);
    } else {
      parse_normalizer(field->bytes, name, settings);
    }
  }
  if (model.pieces.empty()) {
    throw Error(ErrorKind::kModel, fmt::format("{}: holds no pieces; copy the file again", name));
  }
  require_gemma_settings(settings, name);
  return model;
}

std::string serialize_sentencepiece_model(const SentencePieceModel& model) {
  std::string out;
  std::string message;
  for (const Piece& piece : model.pieces) {
    message.clear();
    put_bytes(message, 1, piece.text);
    put_float(message, 2, piece.score);
    if (piece.type != PieceType::kNormal) put_number(message, 3, static_cast<uint64_t>(piece.type));
    put_bytes(out, 1, message);
  }
  message.clear();
  put_number(message, 3, 2);  // model_type: BPE
  put_number(message, 4, model.pieces.size());
  put_number(message, 35, 1);  // byte_fallback
  put_bytes(out, 2, message);
  message.clear();
  put_bytes(message, 1, "identity");
  put_number(message, 3, 0);  // add_dummy_prefix
  put_number(message, 4, 0);  // remove_extra_whitespaces
  put_number(message, 5, 1);  // escape_whitespaces
  put_bytes(out, 3, message);
  return out;
}

}  // namespace gemma_sft
