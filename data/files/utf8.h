// UTF-8: the check of text from files, and the form in which such text may be shown in messages.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace gemma_sft {

struct Utf8Problem {
  size_t byte = 0;    // from 0: the first byte of the bad sequence
  std::string found;  // e.g. "the byte 0xff", "an overlong encoding (0xc0 0xaf)"
};

// The first place where `text` is not UTF-8 (Unicode 15, table 3-7: no overlong forms, no surrogates, nothing above
// U+10FFFF), or nullopt.
std::optional<Utf8Problem> find_utf8_problem(std::string_view text);

// `text` in double quotes, at most `max_bytes` long between them, "..." after the closing quote when it was cut.
// Quotes, backslashes, control and direction-changing characters and bytes that are not UTF-8 are escaped: safe on a
// terminal.
std::string quoted_excerpt(std::string_view text, size_t max_bytes = 60);

// Appends one code point (up to U+10FFFF, no surrogate).
void append_utf8(std::string& text, char32_t code_point);

}  // namespace gemma_sft
