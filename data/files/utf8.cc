#include "data/files/utf8.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>

namespace gemma_sft {
namespace {

// One sequence at the start of `text`: its length when it is good, 0 when it is bad.
struct Sequence {
  size_t length = 0;
  char32_t code_point = 0;
};

uint8_t byte_at(std::string_view text, size_t i) { return static_cast<uint8_t>(text[i]); }
bool is_continuation(uint8_t byte) { return (byte & 0xc0) == 0x80; }

Sequence read_sequence(std::string_view text) {
  const uint8_t first = byte_at(text, 0);
  if (first < 0x80) return {1, first};
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return {};
  char32_t code_point = first & (0xff >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if (!is_continuation(byte_at(text, i))) return {};
    code_point = (code_point << 6) | (byte_at(text, i) & 0x3f);
  }
  if (length == 3 && (code_point < 0x800 || (code_point >= 0xd800 && code_point <= 0xdfff))) return {};
  if (length == 4 && (code_point < 0x10000 || code_point > 0x10ffff)) return {};
  return {length, code_point};
}

std::string hex_bytes(std::string_view text, size_t count) {
  std::string hex;
  for (size_t i = 0; i < count && i < text.size(); ++i)
    hex += fmt::format("{}0x{:02x}", i ? " " : "", byte_at(text, i));
  return hex;
}

// Says what is wrong with the bad sequence at the start of `text`.
std::string describe_bad_sequence(std::string_view text) {
  const uint8_t first = byte_at(text, 0);
  if (is_continuation(first)) return fmt::format("a continuation byte with no start (0x{:02x})", first);
  if (first == 0xc0 || first == 0xc1) return fmt::format("an overlong encoding ({})", hex_bytes(text, 2));
  if (first > 0xf4) return fmt::format("the byte 0x{:02x}, which no UTF-8 text has", first);
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return fmt::format("a character cut short by the end ({})", hex_bytes(text, i));
    const uint8_t byte = byte_at(text, i);
    if (!is_continuation(byte)) return fmt::format("an unfinished character ({})", hex_bytes(text, i + 1));
    if (i > 1) continue;
    if ((first == 0xe0 && byte < 0xa0) || (first == 0xf0 && byte < 0x90)) {
      return fmt::format("an overlong encoding ({})", hex_bytes(text, length));
    }
    if (first == 0xed && byte >= 0xa0) return fmt::format("an encoded surrogate ({})", hex_bytes(text, length));
    if (first == 0xf4 && byte >= 0x90) return fmt::format("a code point above U+10FFFF ({})", hex_bytes(text, length));
  }
  return fmt::format("the bytes {}", hex_bytes(text, length));
}

// Characters that would move the cursor, change the writing direction or be invisible on a terminal.
bool must_be_escaped(char32_t c) {
  return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0xad || c == 0x61c || (c >= 0x200b && c <= 0x200f) ||
         (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
         (c >= 0xe0000 && c <= 0xe0fff);
}

}  // namespace

std::optional<Utf8Problem> find_utf8_problem(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    if (text.size() - i >= 8) {  // eight ASCII bytes at a time
      uint64_t block;
      std::memcpy(&block, text.data() + i, 8);
      if ((block & 0x8080808080808080ull) == 0) {
        i += 8;
        continue;
      }
    }
    const Sequence sequence = read_sequence(text.substr(i));
    if (sequence.length == 0) return Utf8Problem{i, describe_bad_sequence(text.substr(i))};
    i += sequence.length;
  }
  return std::nullopt;
}

std::string quoted_excerpt(std::string_view text, size_t max_bytes) {
  std::string shown;
  size_t i = 0;
  while (i < text.size()) {
    const Sequence sequence = read_sequence(text.substr(i));
    const char32_t c = sequence.code_point;
    std::string piece;
    if (sequence.length == 0) {
      piece = fmt::format("\\x{:02x}", byte_at(text, i));
    } else if (c == '"' || c == '\\') {
      piece = {'\\', static_cast<char>(c)};
    } else if (c == '\n') {
      piece = "\\n";
    } else if (c == '\r') {
      piece = "\\r";
    } else if (c == '\t') {
      piece = "\\t";
    } else if (must_be_escaped(c)) {
      piece = c <= 0xffff ? fmt::format("\\u{:04x}", static_cast<uint32_t>(c))
                          : fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    } else {
      piece = std::string(text.substr(i, sequence.length));
    }
    if (shown.size() + piece.size() > max_bytes) break;
    shown += piece;
    i += sequence.length == 0 ? 1 : sequence.length;
  }
  return "\"" + shown + (i < text.size() ? "\"..." : "\"");
}

void append_utf8(std::string& text, char32_t c) {
  if (c < 0x80) {
    text += static_cast<char>(c);
  } else if (c < 0x800) {
    text += static_cast<char>(0xc0 | (c >> 6));
    text += static_cast<char>(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    text += static_cast<char>(0xe0 | (c >> 12));
    text += static_cast<char>(0x80 | ((c >> 6) & 0x3f));
    text += static_cast<char>(0x80 | (c & 0x3f));
  } else {
    text += static_cast<char>(0xf0 | (c >> 18));
    text += static_cast<char>(0x80 | ((c >> 12) & 0x3f));
    text += static_cast<char>(0x80 | ((c >> 6) & 0x3f));
    text += static_cast<char>(0x80 | (c & 0x3f));
  }
}

}  // namespace gemma_sft
