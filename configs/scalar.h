// The text of one YAML scalar <-> a value, strictly: `2e-5` is a number, `010` and `1_000` are not, and `yes` is not a
// switch. Nothing depends on the locale.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gemma_sft {

// Decimal digits with an optional sign; no leading zero, no exponent. Empty where it is not that or exceeds 64 bits.
std::optional<int64_t> parse_whole_number(std::string_view text);

// 3, -0.5, .5, 2e-5, 1E+3: finite and within double. No leading zero before another digit, no hexadecimal.
std::optional<double> parse_number(std::string_view text);

// `true` or `false`, nothing else.
std::optional<bool> parse_switch(std::string_view text);

// What else a plain scalar means to YAML, for "found ...": "number", "switch", "nothing", or "text".
std::string_view plain_meaning(std::string_view text);

// A remedy for a scalar that was meant as a whole number, a number or a switch ("write 1000"); empty where none is
// known.
std::string whole_number_remedy(std::string_view text);
std::string number_remedy(std::string_view text);
std::string switch_remedy(std::string_view text);

// Bytes of the UTF-8 sequence that `text` begins with; 0 when it is none (overlong, surrogate, cut off). Not for "".
size_t utf8_length(std::string_view text);

// The shortest text that reads back as the same double.
std::string print_number(double value);

// "..." with the escapes that JSON and YAML double quotes share. Bytes that are not UTF-8 become U+FFFD.
std::string in_quotes(std::string_view text);

// `text` as it may stand on a terminal: control characters (C0, DEL, C1), but those in `kept`, as \u001b, and bytes
// that are not UTF-8 as \xff; all else as it is. Inside the strings of JSON what was a character means the same.
std::string without_controls(std::string_view text, std::string_view kept = "\n");

}  // namespace gemma_sft
