#include "data/files/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <deque>
#include <vector>

#include "configs/error.h"
#include "data/files/utf8.h"

namespace gemma_sft {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

size_t skip_space(std::string_view text, size_t i) {
  while (i < text.size() && is_space(text[i])) ++i;
  return i;
}

// Of checked text: the byte after the string whose opening quote is at `i`.
size_t skip_string(std::string_view text, size_t i) {
  for (++i; text[i] != '"'; ++i) {
    if (text[i] == '\\') ++i;
  }
  return i + 1;
}

// Of checked text: the byte after the value that starts at `i`.
size_t skip_value(std::string_view text, size_t i) {
  if (text[i] == '"') return skip_string(text, i);
  if (text[i] != '{' && text[i] != '[') {
    while (i < text.size() && !is_space(text[i]) && text[i] != ',' && text[i] != '}' && text[i] != ']') ++i;
    return i;
  }
  size_t depth = 0;
  do {
    switch (text[i]) {
      case '"': i = skip_string(text, i); continue;
      case '{':
      case '[': ++depth; break;
      case '}':
      case ']': --depth; break;
      default: break;
    }
    ++i;
  } while (depth > 0);
  return i;
}

char32_t read_hex4(std::string_view text, size_t i) {
  char32_t value = 0;
  for (size_t k = 0; k < 4; ++k) value = value * 16 + static_cast<char32_t>(hex_digit(text[i + k]));
  return value;
}

bool is_high_surrogate(char32_t c) { return c >= 0xd800 && c <= 0xdbff; }
bool is_low_surrogate(char32_t c) { return c >= 0xdc00 && c <= 0xdfff; }

// Of checked text: the contents of the string whose opening quote is at `i`.
std::string read_string(std::string_view text, size_t i) {
  std::string value;
  ++i;
  while (text[i] != '"') {
    size_t plain = i;
    while (text[plain] != '"' && text[plain] != '\\') ++plain;
    value.append(text.substr(i, plain - i));
    i = plain;
    if (text[i] != '\\') continue;
    const char escape = text[i + 1];
    i += 2;
    switch (escape) {
      case 'b': value += '\b'; break;
      case 'f': value += '\f'; break;
      case 'n': value += '\n'; break;
      case 'r': value += '\r'; break;
      case 't': value += '\t'; break;
      case 'u': {
        char32_t code_point = read_hex4(text, i);
        i += 4;
        if (is_high_surrogate(code_point)) {
          code_point = 0x10000 + ((code_point - 0xd800) << 10) + (read_hex4(text, i + 2) - 0xdc00);
          i += 6;
        }
        append_utf8(value, code_point);
        break;
      }
      default:  // the quote, the backslash and the slash stand for themselves
        value += escape;
    }
  }
  return value;
}

// One pass over the text. Every `check_` returns false after setting `problem_`.
class Checker {
 public:
  Checker(std::string_view text, const JsonLimits& limits) : text_(text), limits_(limits) {}

  std::optional<JsonProblem> run() {
    if (auto bad = find_utf8_problem(text_)) return JsonProblem{bad->byte, "valid UTF-8", std::move(bad->found)};
    check_text();
    return std::move(problem_);
  }

 private:
  struct Key {
    std::string_view name;
    size_t byte;
  };
  struct Level {
    bool is_object;
    size_t first_key;        // index in keys_
    size_t first_unescaped;  // index in unescaped_
  };

  bool fail_with(size_t byte, std::string expected, std::string found) {
    problem_ = JsonProblem{byte, std::move(expected), std::move(found)};
    return false;
  }

  // What stands at `byte`: a word, or up to 20 bytes.
  bool fail(size_t byte, std::string expected) {
    if (byte >= text_.size()) return fail_with(text_.size(), std::move(expected), "the end of the text");
    size_t end = byte + 1;
    const auto is_word = [this](size_t i) {
      const char c = text_[i];
      return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' || c == '.';
    };
    if (is_word(byte)) {
      while (end < text_.size() && end - byte < 40 && is_word(end)) ++end;
    } else if (static_cast<unsigned char>(text_[byte]) >= 0x80) {
      while (end < text_.size() && (text_[end] & 0xc0) == 0x80) ++end;
    }
    return fail_with(byte, std::move(expected), quoted_excerpt(text_.substr(byte, end - byte), 20));
  }

  bool check_text() {
    i_ = skip_space(text_, i_);
    if (!check_value()) return false;
    while (!levels_.empty()) {
      i_ = skip_space(text_, i_);
      const bool is_object = levels_.back().is_object;
      const char closing = is_object ? '}' : ']';
      if (i_ < text_.size() && text_[i_] == closing) {
        if (!close_level()) return false;
        continue;
      }
      if (!just_opened_) {
        if (i_ >= text_.size() || text_[i_] != ',') return fail(i_, is_object ? "',' or '}'" : "',' or ']'");
        i_ = skip_space(text_, i_ + 1);
      }
      if (is_object && !check_name()) return false;
      just_opened_ = false;
      if (!check_value()) return false;
    }
    i_ = skip_space(text_, i_);
    if (i_ < text_.size()) return fail(i_, "nothing after the JSON value");
    return true;
  }

  bool check_name() {
    if (i_ >= text_.size() || text_[i_] != '"') return fail(i_, "a member name in double quotes");
    const size_t begin = i_;
    bool escaped = false;
    if (!check_string(escaped)) return false;
    if (keys_.size() >= limits_.max_members) {
      return fail_with(begin, fmt::format("at most {} members", limits_.max_members), "more");
    }
    std::string_view name = text_.substr(begin + 1, i_ - begin - 2);
    if (escaped) name = unescaped_.emplace_back(read_string(text_, begin));
    keys_.push_back({name, begin});
    i_ = skip_space(text_, i_);
    if (i_ >= text_.size() || text_[i_] != ':') return fail(i_, "':' after the member name");
    i_ = skip_space(text_, i_ + 1);
    return true;
  }

  bool check_value() {
    if (i_ >= text_.size()) return fail(i_, "a JSON value");
    switch (text_[i_]) {
      case '{':
      case '[':
        if (levels_.size() >= limits_.max_depth) {
          return fail_with(i_, fmt::format("at most {} levels of nesting", limits_.max_depth), "more");
        }
        levels_.push_back({text_[i_] == '{', keys_.size(), unescaped_.size()});
        just_opened_ = true;
        ++i_;
        return true;
      case '"': {
        bool escaped = false;
        return check_string(escaped);
      }
      case 't': return check_word("true");
      case 'f': return check_word("false");
      case 'n': return check_word("null");
      default: return check_number();
    }
  }

  bool close_level() {
    const Level level = levels_.back();
    levels_.pop_back();
    just_opened_ = false;
    ++i_;
    if (!level.is_object) return true;
    const auto begin = keys_.begin() + static_cast<std::ptrdiff_t>(level.first_key);
    std::sort(begin, keys_.end(),
              [](const Key& a, const Key& b) { return a.name != b.name ? a.name < b.name : a.byte < b.byte; });
    const Key* duplicate = nullptr;
    for (size_t k = level.first_key + 1; k < keys_.size(); ++k) {
      if (keys_[k].name == keys_[k - 1].name && (!duplicate || keys_[k].byte < duplicate->byte)) duplicate = &keys_[k];
    }
    if (duplicate) {
      return fail_with(duplicate->byte, "each member name once", quoted_excerpt(duplicate->name) + " again");
    }
    keys_.erase(begin, keys_.end());
    unescaped_.resize(level.first_unescaped);
    return true;
  }

  bool check_word(std::string_view word) {
    if (text_.substr(i_, word.size()) != word) return fail(i_, "a JSON value");
    i_ += word.size();
    return true;
  }

  bool check_digits() {
    if (i_ >= text_.size() || !is_digit(text_[i_])) return fail(i_, "a digit");
    while (i_ < text_.size() && is_digit(text_[i_])) ++i_;
    return true;
  }

  bool check_number() {
    const size_t begin = i_;
    if (text_[i_] == '-') ++i_;
    if (i_ >= text_.size() || !is_digit(text_[i_])) return fail(begin, "a JSON value");
    if (text_[i_] == '0') {
      ++i_;
      if (i_ < text_.size() && is_digit(text_[i_])) return fail(begin, "a number without leading zeros");
    } else if (!check_digits()) {
      return false;
    }
    if (i_ < text_.size() && text_[i_] == '.') {
      ++i_;
      if (!check_digits()) return false;
    }
    if (i_ < text_.size() && (text_[i_] == 'e' || text_[i_] == 'E')) {
      ++i_;
      if (i_ < text_.size() && (text_[i_] == '+' || text_[i_] == '-')) ++i_;
      if (!check_digits()) return false;
    }
    return true;
  }

  bool check_string(bool& escaped) {
    const size_t begin = i_;
    ++i_;
    for (;;) {
      while (i_ < text_.size() && text_[i_] != '"' && text_[i_] != '\\' &&
             static_cast<unsigned char>(text_[i_]) >= 0x20) {
        ++i_;
      }
      if (i_ >= text_.size()) {
        return fail_with(text_.size(), fmt::format("the closing quote of the string that starts at byte {}", begin + 1),
                         "the end of the text");
      }
      if (text_[i_] == '"') {
        ++i_;
        return true;
      }
      if (text_[i_] != '\\') return fail(i_, "control characters in strings escaped, such as \\n or \\u0000");
      escaped = true;
      if (!check_escape()) return false;
    }
  }

  bool check_escape() {
    const size_t begin = i_;
    if (i_ + 1 >= text_.size()) return fail(i_ + 1, "an escape sequence");
    if (text_[i_ + 1] != 'u') {
      if (std::string_view("\"\\/bfnrt").find(text_[i_ + 1]) == std::string_view::npos) {
        return fail_with(begin, "an escape sequence of JSON", quoted_excerpt(text_.substr(begin, 2)));
      }
      i_ += 2;
      return true;
    }
    if (!check_hex4(begin)) return false;
    const char32_t code_point = read_hex4(text_, begin + 2);
    if (is_low_surrogate(code_point)) return fail_lone(begin);
    if (!is_high_surrogate(code_point)) return true;
    if (text_.substr(i_, 2) != "\\u") return fail_lone(begin);
    const size_t second = i_;
    if (!check_hex4(second)) return false;
    if (!is_low_surrogate(read_hex4(text_, second + 2))) return fail_lone(begin);
    return true;
  }

  bool fail_lone(size_t byte) {
    return fail_with(byte, "surrogates in pairs", fmt::format("the lone surrogate {}", text_.substr(byte, 6)));
  }

  // Leaves i_ after the four digits.
  bool check_hex4(size_t escape) {
    for (size_t k = 2; k < 6; ++k) {
      if (escape + k >= text_.size() || hex_digit(text_[escape + k]) < 0) {
        return fail_with(escape, "four hexadecimal digits after \\u", quoted_excerpt(text_.substr(escape, k + 1)));
      }
    }
    i_ = escape + 6;
    return true;
  }

  std::string_view text_;
  JsonLimits limits_;
  size_t i_ = 0;
  bool just_opened_ = false;
  std::vector<Level> levels_;
  std::vector<Key> keys_;
  std::deque<std::string> unescaped_;  // names with escapes; keys_ points into it
  std::optional<JsonProblem> problem_;
};

[[noreturn]] void throw_wrong_kind() {
  throw Error(ErrorKind::kInternal, "a JSON value was read as another kind than it is");
}

}  // namespace

std::optional<JsonProblem> find_json_problem(std::string_view text, const JsonLimits& limits) {
  return Checker(text, limits).run();
}

JsonValue::JsonValue(std::string_view checked_text) : text_(checked_text), begin_(skip_space(checked_text, 0)) {}

JsonKind JsonValue::kind() const {
  switch (text_[begin_]) {
    case '{': return JsonKind::kObject;
    case '[': return JsonKind::kArray;
    case '"': return JsonKind::kString;
    case 't':
    case 'f': return JsonKind::kBool;
    case 'n': return JsonKind::kNull;
    default: return JsonKind::kNumber;
  }
}

std::string_view JsonValue::raw() const { return text_.substr(begin_, skip_value(text_, begin_) - begin_); }

bool JsonValue::boolean() const {
  if (kind() != JsonKind::kBool) throw_wrong_kind();
  return text_[begin_] == 't';
}

std::string JsonValue::string() const {
  if (kind() != JsonKind::kString) throw_wrong_kind();
  return read_string(text_, begin_);
}

std::optional<int64_t> JsonValue::integer() const {
  if (kind() != JsonKind::kNumber) throw_wrong_kind();
  const std::string_view digits = raw();
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || digits == "-0") return std::nullopt;
  return value;
}

void JsonValue::each_element(const std::function<bool(const JsonValue&)>& visit) const {
  if (kind() != JsonKind::kArray) throw_wrong_kind();
  size_t i = skip_space(text_, begin_ + 1);
  while (text_[i] != ']') {
    if (!visit(JsonValue(text_, i))) return;
    i = skip_space(text_, skip_value(text_, i));
    if (text_[i] == ',') i = skip_space(text_, i + 1);
  }
}

void JsonValue::each_member(const std::function<bool(const JsonMember&)>& visit) const {
  if (kind() != JsonKind::kObject) throw_wrong_kind();
  size_t i = skip_space(text_, begin_ + 1);
  while (text_[i] != '}') {
    const size_t name_byte = i;
    i = skip_space(text_, skip_string(text_, i));  // at the colon
    i = skip_space(text_, i + 1);
    if (!visit(JsonMember{read_string(text_, name_byte), name_byte, JsonValue(text_, i)})) return;
    i = skip_space(text_, skip_value(text_, i));
    if (text_[i] == ',') i = skip_space(text_, i + 1);
  }
}

std::string JsonValue::description() const {
  switch (kind()) {
    case JsonKind::kNull: return "null";
    case JsonKind::kBool: return boolean() ? "true" : "false";
    case JsonKind::kNumber: {
      const std::string_view digits = raw();
      return fmt::format("the number {}{}", digits.substr(0, 40), digits.size() > 40 ? "..." : "");
    }
    case JsonKind::kString: {
      const std::string value = string();
      return value.empty() ? "an empty string" : "the string " + quoted_excerpt(value);
    }
    case JsonKind::kArray: return text_[skip_space(text_, begin_ + 1)] == ']' ? "an empty array" : "an array";
    case JsonKind::kObject: return text_[skip_space(text_, begin_ + 1)] == '}' ? "an empty object" : "an object";
  }
  return "";
}

std::optional<JsonValue> find_member(const JsonValue& object, std::string_view name) {
  std::optional<JsonValue> found;
  if (object.kind() != JsonKind::kObject) return found;
  object.each_member([&](const JsonMember& member) {
    if (member.name == name) found.emplace(member.value);
    return !found;
  });
  return found;
}

int64_t column_of_member(std::string_view text, std::string_view name, std::optional<size_t> element) {
  int64_t column = 1;
  if (find_json_problem(text)) return column;
  const JsonValue object(text);
  if (object.kind() != JsonKind::kObject) return column;
  object.each_member([&](const JsonMember& member) {
    if (member.name != name) return true;
    column = static_cast<int64_t>(member.value.byte()) + 1;
    if (element && member.value.kind() == JsonKind::kArray) {
      size_t left = *element;
      member.value.each_element([&](const JsonValue& value) {
        if (left-- > 0) return true;
        column = static_cast<int64_t>(value.byte()) + 1;
        return false;
      });
    }
    return false;
  });
  return column;
}

std::string json_quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    switch (c) {
      case '"': quoted += "\\\""; break;
      case '\\': quoted += "\\\\"; break;
      case '\n': quoted += "\\n"; break;
      case '\r': quoted += "\\r"; break;
      case '\t': quoted += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          quoted += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          quoted += c;
        }
    }
  }
  return quoted + '"';
}

}  // namespace gemma_sft
