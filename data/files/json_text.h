// JSON in which every value knows the byte where it starts, so that an error can name a place.
//
// Two steps: `find_json_problem` checks a whole text once, strictly (RFC 8259) and with limits, without building
// anything; `JsonValue` then walks the checked text without copying it. Nothing here recurses, so depth cannot exhaust
// the stack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace gemma_sft {

struct JsonLimits {
  size_t max_depth = 256;        // arrays and objects inside each other
  size_t max_members = 262'144;  // members of all objects that are open at one moment
};

struct JsonProblem {
  size_t byte = 0;       // from 0
  std::string expected;  // e.g. "',' or '}'"
  std::string found;     // e.g. "\"]\"", "the end of the text"
};

// The first reason why `text` is not exactly one JSON value in UTF-8, or nullopt. Also refused: duplicate member names
// in one object (at any depth), lone surrogates, and whatever is beyond the limits. Memory: 24 bytes per open member.
std::optional<JsonProblem> find_json_problem(std::string_view text, const JsonLimits& limits = {});

enum class JsonKind { kNull, kBool, kNumber, kString, kArray, kObject };

struct JsonMember;

// A value inside a text that `find_json_problem` found nothing wrong with; the text must outlive it. Calling a getter
// of another kind than `kind()` throws Error(kInternal).
class JsonValue {
 public:
  explicit JsonValue(std::string_view checked_text);  // its outermost value

  JsonKind kind() const;
  size_t byte() const { return begin_; }  // of the value's first character, from 0
  std::string_view raw() const;           // the value as it is written

  bool boolean() const;
  std::string string() const;              // unescaped
  std::optional<int64_t> integer() const;  // nullopt: written with '.', 'e' or as -0, or beyond 64 bits
  // Visit in order, until `visit` says false.
  void each_element(const std::function<bool(const JsonValue&)>& visit) const;
  void each_member(const std::function<bool(const JsonMember&)>& visit) const;
  // What stands there, for messages, at most about 80 bytes: "the number 5", "the string \"abc\"", "an empty array".
  std::string description() const;

 private:
  JsonValue(std::string_view text, size_t begin) : text_(text), begin_(begin) {}

  std::string_view text_;
  size_t begin_;
};

struct JsonMember {
  std::string name;
  size_t name_byte = 0;
  JsonValue value;
};

// nullopt: `object` is none, or has no such member.
std::optional<JsonValue> find_member(const JsonValue& object, std::string_view name);

// Column (from 1, in bytes) of the value of a member of the outermost object, or of its `element`-th element; 1 where
// there is none or `text` is not one JSON value.
int64_t column_of_member(std::string_view text, std::string_view name, std::optional<size_t> element = std::nullopt);

// `text` (UTF-8) as a JSON string, with quotes. Non-ASCII characters stay as they are.
std::string json_quoted(std::string_view text);

}  // namespace gemma_sft
