// The members of one JSON object, taken one at a time by name. What is wrong with a value, and which members nobody
// asked for, is collected, so that one message can name every problem of a file.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/files/json_text.h"

namespace gemma_sft {

// Problems of one JSON file, in the order they were found.
class JsonProblems {
 public:
  void add(const std::string& problem);
  bool empty() const { return count_ == 0; }
  // "FILE: problem" or "FILE: 2 problems:\n  problem\n  problem"; all of them are counted, the first hundred shown.
  std::string message(const std::string& file) const;

 private:
  static constexpr size_t kMostKept = 100;  // a hostile file could have a million
  std::vector<std::string> problems_;
  size_t count_ = 0;
};

// The text must outlive it (see JsonValue). A null counts as absent unless a method says otherwise.
class JsonFields {
 public:
  // `path` stands in front of the names in messages: "" or "text_config.".
  JsonFields(const JsonValue& object, std::string path, JsonProblems& problems);

  bool has(const std::string& name) const;      // present and not null
  bool is_null(const std::string& name) const;  // present and null
  std::optional<JsonValue> take(const std::string& name);

  // Absent (or null): `otherwise`. Wrong type or out of range: a problem, and `otherwise`.
  int64_t integer(const std::string& name, int64_t otherwise, int64_t least, int64_t most);
  double positive(const std::string& name, double otherwise);  // finite and > 0
  double number(const std::string& name, double otherwise);    // finite
  bool boolean(const std::string& name, bool otherwise);
  std::string string(const std::string& name, const std::string& otherwise);
  std::optional<std::vector<std::string>> strings(const std::string& name);  // an array of strings

  // Adds the problem "NAME" is VALUE; `remedy`.
  void refuse(const std::string& name, const std::string& remedy);

  // Names that nobody took; null members do not count.
  std::vector<std::string> left_over() const;

  std::string quoted(const std::string& name) const;  // "text_config.head_dim" in quotes

 private:
  std::map<std::string, JsonValue> members_;
  std::vector<std::string> order_;
  std::set<std::string> taken_;
  std::string path_;
  JsonProblems& problems_;
};

// A finite JSON number as double; nullopt when `value` is none.
std::optional<double> json_number(const JsonValue& value);

// Checks a whole file's text; throws Error(kModel) "FILE:line:column: expected ..., found ..." when it is not one JSON
// object.
JsonValue require_json_object(const std::string& text, const std::string& file);

}  // namespace gemma_sft
