#include "configs/scalar.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>

namespace gemma_sft {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

size_t digits_from(std::string_view text, size_t at) {
  size_t end = at;
  while (end < text.size() && is_digit(text[end])) ++end;
  return end - at;
}

std::string_view without_plus(std::string_view text) { return !text.empty() && text[0] == '+' ? text.substr(1) : text; }

// Does `text` follow the grammar of parse_number, when a leading zero is forgiven?
bool looks_like_number(std::string_view text) {
  size_t at = !text.empty() && (text[0] == '+' || text[0] == '-') ? 1 : 0;
  const size_t whole = digits_from(text, at);
  at += whole;
  size_t fraction = 0;
  if (at < text.size() && text[at] == '.') {
    fraction = digits_from(text, at + 1);
    at += 1 + fraction;
  }
  if (whole + fraction == 0) return false;
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    ++at;
    if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
    const size_t exponent = digits_from(text, at);
    if (exponent == 0) return false;
    at += exponent;
  }
  return at == text.size();
}

bool has_leading_zero(std::string_view text) {
  const size_t at = !text.empty() && (text[0] == '+' || text[0] == '-') ? 1 : 0;
  return digits_from(text, at) > 1 && text[at] == '0';
}

std::string without_leading_zeros(std::string_view text) {
  const size_t sign = !text.empty() && (text[0] == '+' || text[0] == '-') ? 1 : 0;
  size_t at = sign;
  while (at + 1 < text.size() && text[at] == '0' && is_digit(text[at + 1])) ++at;
  return std::string(text.substr(0, sign)) + std::string(text.substr(at));
}

std::string without(std::string_view text, char unwanted) {
  std::string kept;
  for (const char c : text) {
    if (c != unwanted) kept += c;
  }
  return kept;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

bool names_infinity_or_nan(std::string_view text) {
  std::string name = lower(text);
  if (!name.empty() && (name[0] == '+' || name[0] == '-')) name.erase(0, 1);
  if (!name.empty() && name[0] == '.') name.erase(0, 1);
  return name == "inf" || name == "infinity" || name == "nan";
}

}  // namespace

std::optional<int64_t> parse_whole_number(std::string_view text) {
  const std::string_view digits = without_plus(text);
  if (digits.empty() || (digits.size() < text.size() && !is_digit(digits[0]))) return std::nullopt;
  if (has_leading_zero(digits)) return std::nullopt;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

std::optional<double> parse_number(std::string_view text) {
  if (!looks_like_number(text) || has_leading_zero(text)) return std::nullopt;
  const std::string_view digits = without_plus(text);
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

std::optional<bool> parse_switch(std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return std::nullopt;
}

std::string_view plain_meaning(std::string_view text) {
  if (text.empty() || text == "~" || lower(text) == "null") return "nothing";
  if (looks_like_number(text) || names_infinity_or_nan(text)) return "number";
  const std::string name = lower(text);
  if (name == "true" || name == "false") return "switch";
  return "text";
}

std::string whole_number_remedy(std::string_view text) {
  if (looks_like_number(text)) {
    if (has_leading_zero(text)) {
      return fmt::format("a leading zero means octal to some readers, write {}", without_leading_zeros(text));
    }
    const std::optional<double> value = parse_number(text);
    if (value && *value == std::floor(*value) && std::abs(*value) < 1e15) {
      return fmt::format("write {}", static_cast<int64_t>(*value));
    }
    return "";
  }
  const std::string without_underscores = without(text, '_');
  if (without_underscores.size() < text.size() && parse_whole_number(without_underscores)) {
    return fmt::format("write {}", without_underscores);
  }
  const std::string without_commas = without(text, ',');
  if (without_commas.size() < text.size() && parse_whole_number(without_commas)) {
    return fmt::format("write {}", without_commas);
  }
  return "";
}

std::string number_remedy(std::string_view text) {
  if (names_infinity_or_nan(text)) return "only finite numbers are accepted";
  if (looks_like_number(text)) {
    if (has_leading_zero(text)) {
      return fmt::format("a leading zero means octal to some readers, write {}", without_leading_zeros(text));
    }
    return "it does not fit into a double";
  }
  const std::string without_underscores = without(text, '_');
  if (without_underscores.size() < text.size() && parse_number(without_underscores)) {
    return fmt::format("write {}", without_underscores);
  }
  std::string with_point(text);
  const size_t comma = with_point.find(',');
  if (comma != std::string::npos) {
    with_point[comma] = '.';
    if (parse_number(with_point)) return fmt::format("write {}", with_point);
  }
  return "";
}

std::string switch_remedy(std::string_view text) {
  const std::string name = lower(text);
  if (name == "true" || name == "yes" || name == "on" || name == "y" || name == "1") {
    return "write true";
  }
  if (name == "false" || name == "no" || name == "off" || name == "n" || name == "0") {
    return "write false";
  }
  return "";
}

size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continues = [&](size_t i) { return i < text.size() && (byte(i) & 0xc0) == 0x80; };
  if (byte(0) < 0x80) return 1;
  if (byte(0) >= 0xc2 && byte(0) <= 0xdf) return continues(1) ? 2 : 0;
  if (byte(0) >= 0xe0 && byte(0) <= 0xef) {
    if (!continues(1) || !continues(2)) return 0;
    if (byte(0) == 0xe0 && byte(1) < 0xa0) return 0;  // overlong
    if (byte(0) == 0xed && byte(1) > 0x9f) return 0;  // surrogate
    return 3;
  }
  if (byte(0) >= 0xf0 && byte(0) <= 0xf4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (byte(0) == 0xf0 && byte(1) < 0x90) return 0;
    if (byte(0) == 0xf4 && byte(1) > 0x8f) return 0;
    return 4;
  }
  return 0;
}

std::string print_number(double value) {
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return std::string(buffer, result.ptr);
}

std::string in_quotes(std::string_view text) {
  std::string result = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text.substr(at));
    switch (text[at]) {
      case '"': result += "\\\""; break;
      case '\\': result += "\\\\"; break;
      case '\n': result += "\\n"; break;
      case '\r': result += "\\r"; break;
      case '\t': result += "\\t"; break;
      default: result += length > 0 ? without_controls(text.substr(at, length), "") : "\\ufffd";
    }
    at += std::max<size_t>(length, 1);
  }
  return result + '"';
}

std::string without_controls(std::string_view text, std::string_view kept) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text.substr(at));
    const std::string_view character = text.substr(at, std::max<size_t>(length, 1));
    // Of a C1 character, 0xc2 0x80 to 0xc2 0x9f, the last byte is the number, too.
    const auto last = static_cast<unsigned char>(character.back());
    const bool is_control =
        length == 1 ? last < 0x20 || last == 0x7f : length == 2 && character[0] == '\xc2' && last < 0xa0;
    if (length == 0) {
      result += fmt::format("\\x{:02x}", last);
    } else if (is_control && kept.find(character) == std::string_view::npos) {
      result += fmt::format("\\u{:04x}", last);
    } else {
      result += character;
    }
    at += character.size();
  }
  return result;
}

}  // namespace gemma_sft
