#include "model/json_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "configs/error.h"
#include "data/files/pickle.h"
#include "data/files/utf8.h"

namespace gemma_sft {

void JsonProblems::add(const std::string& problem) {
  if (++count_ <= kMostKept) problems_.push_back(problem);
}

std::string JsonProblems::message(const std::string& file) const {
  if (count_ == 1) return file + ": " + problems_.front();
  std::string text = fmt::format("{}: {} problems:", file, count_);
  for (const std::string& problem : problems_) text += "\n  " + problem;
  if (count_ > problems_.size()) text += fmt::format("\n  and {} more", count_ - problems_.size());
  return text;
}

JsonFields::JsonFields(const JsonValue& object, std::string path, JsonProblems& problems)
    : path_(std::move(path)), problems_(problems) {
  object.each_member([&](const JsonMember& member) {
    members_.emplace(member.name, member.value);
    order_.push_back(member.name);
    return true;
  });
}

bool JsonFields::has(const std::string& name) const {
  const auto found = members_.find(name);
  return found != members_.end() && found->second.kind() != JsonKind::kNull;
}

bool JsonFields::is_null(const std::string& name) const {
  const auto found = members_.find(name);
  return found != members_.end() && found->second.kind() == JsonKind::kNull;
}

std::optional<JsonValue> JsonFields::take(const std::string& name) {
  taken_.insert(name);
  const auto found = members_.find(name);
  if (found == members_.end() || found->second.kind() == JsonKind::kNull) return std::nullopt;
  return found->second;
}

std::string JsonFields::quoted(const std::string& name) const { return quoted_excerpt(path_ + name); }

void JsonFields::refuse(const std::string& name, const std::string& remedy) {
  taken_.insert(name);
  const auto found = members_.find(name);
  const std::string value = found == members_.end() ? "absent" : found->second.description();
  problems_.add(fmt::format("{} is {}; {}", quoted(name), value, remedy));
}

int64_t JsonFields::integer(const std::string& name, int64_t otherwise, int64_t least, int64_t most) {
  const std::optional<JsonValue> value = take(name);
  if (!value) return otherwise;
  const std::optional<int64_t> number = value->kind() == JsonKind::kNumber ? value->integer() : std::nullopt;
  if (!number || *number < least || *number > most) {
    refuse(name, fmt::format("expected an integer from {} to {}", least, most));
    return otherwise;
  }
  return *number;
}

double JsonFields::number(const std::string& name, double otherwise) {
  const std::optional<JsonValue> value = take(name);
  if (!value) return otherwise;
  const std::optional<double> number = json_number(*value);
  if (!number) refuse(name, "expected a finite number");
  return number.value_or(otherwise);
}

double JsonFields::positive(const std::string& name, double otherwise) {
  const std::optional<JsonValue> value = take(name);
  if (!value) return otherwise;
  const std::optional<double> number = json_number(*value);
  if (!number || *number <= 0) {
    refuse(name, "expected a finite number above 0");
    return otherwise;
  }
  return *number;
}

bool JsonFields::boolean(const std::string& name, bool otherwise) {
  const std::optional<JsonValue> value = take(name);
  if (!value) return otherwise;
  if (value->kind() == JsonKind::kBool) return value->boolean();
  refuse(name, "expected true or false");
  return otherwise;
}

std::string JsonFields::string(const std::string& name, const std::string& otherwise) {
  const std::optional<JsonValue> value = take(name);
  if (!value) return otherwise;
  if (value->kind() == JsonKind::kString) return value->string();
  refuse(name, "expected a string");
  return otherwise;
}

std::optional<std::vector<std::string>> JsonFields::strings(const std::string& name) {
  const std::optional<JsonValue> value = take(name);
  if (!value) return std::nullopt;
  std::vector<std::string> all;
  bool good = value->kind() == JsonKind::kArray;
  if (good) {
    value->each_element([&](const JsonValue& element) {
      good = element.kind() == JsonKind::kString;
      if (good) all.push_back(element.string());
      return good;
    });
  }
  if (!good) {
    refuse(name, "expected an array of strings");
    return std::nullopt;
  }
  return all;
}

std::vector<std::string> JsonFields::left_over() const {
  std::vector<std::string> names;
  for (const std::string& name : order_) {
    if (has(name) && !taken_.contains(name)) names.push_back(name);
  }
  return names;
}

std::optional<double> json_number(const JsonValue& value) {
  if (value.kind() != JsonKind::kNumber) return std::nullopt;
  const double number = std::strtod(std::string(value.raw()).c_str(), nullptr);
  if (!std::isfinite(number)) return std::nullopt;
  return number;
}

JsonValue require_json_object(const std::string& text, const std::string& file) {
  if (const std::string pickle = recognise_pickle(text); !pickle.empty()) {
    throw Error(ErrorKind::kModel, file + ": " + pickle);
  }
  if (const std::optional<JsonProblem> problem = find_json_problem(text)) {
    const std::string_view before = std::string_view(text).substr(0, problem->byte);
    const size_t line = static_cast<size_t>(std::count(before.begin(), before.end(), '\n')) + 1;
    const size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
    throw Error(ErrorKind::kModel, fmt::format("{}:{}:{}: expected {}, found {}", file, line,
                                               problem->byte - line_start + 1, problem->expected, problem->found));
  }
  const JsonValue value(text);
  if (value.kind() != JsonKind::kObject) {
    throw Error(ErrorKind::kModel, fmt::format("{}: expected a JSON object, found {}", file, value.description()));
  }
  return value;
}

}  // namespace gemma_sft
