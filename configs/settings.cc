#include "configs/settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <unordered_map>

#include "configs/scalar.h"

namespace gemma_sft {
namespace {

std::string number_expectation(const NumberRange& range) {
  const std::string minimum = fmt::format("{}", range.minimum);
  const std::string maximum = fmt::format("{}", range.maximum);
  if (range.with_minimum && range.with_maximum) {
    return fmt::format("a number from {} to {}", minimum, maximum);
  }
  return fmt::format("a number {} {} and {} {}", range.with_minimum ? "from" : "above", minimum,
                     range.with_maximum ? "up to" : "below", maximum);
}

}  // namespace

const Setting* find_setting(std::string_view key) {
  static const std::unordered_map<std::string_view, const Setting*> by_key = [] {
    std::unordered_map<std::string_view, const Setting*> map;
    for (const Setting& setting : settings()) map[setting.key] = &setting;
    return map;
  }();
  const auto found = by_key.find(key);
  return found == by_key.end() ? nullptr : found->second;
}

bool is_section(std::string_view path) {
  for (const Setting& setting : settings()) {
    if (setting.key.size() > path.size() && setting.key[path.size()] == '.' &&
        setting.key.compare(0, path.size(), path) == 0) {
      return true;
    }
  }
  return false;
}

const std::vector<std::string>& setting_keys() {
  static const std::vector<std::string> keys = [] {
    std::vector<std::string> all;
    for (const Setting& setting : settings()) all.push_back(setting.key);
    return all;
  }();
  return keys;
}

Value default_value(const Setting& setting) {
  static const RunConfig defaults;
  return setting.field.get(defaults);
}

std::string yaml_text(const Setting& setting, const Value& value) {
  struct Printer {
    bool plain;
    std::string operator()(std::monostate) const { return "null"; }
    std::string operator()(bool on) const { return on ? "true" : "false"; }
    std::string operator()(int64_t number) const { return std::to_string(number); }
    std::string operator()(double number) const { return print_number(number); }
    std::string operator()(const std::string& text) const { return plain ? text : in_quotes(text); }
    std::string operator()(const std::vector<std::string>& list) const {
      std::vector<std::string> items;
      for (const std::string& item : list) items.push_back(in_quotes(item));
      return fmt::format("[{}]", fmt::join(items, ", "));
    }
  };
  return std::visit(Printer{setting.field.type == ValueType::kChoice}, value);
}

std::string expectation(const Setting& setting) {
  switch (setting.field.type) {
    case ValueType::kText: return "text";
    case ValueType::kSwitch: return "true or false";
    case ValueType::kTextList: return "a list of names such as [q_proj, v_proj]";
    case ValueType::kWholeNumber:
      return fmt::format("a whole number from {} to {}", setting.whole->minimum, setting.whole->maximum);
    case ValueType::kNumber: return number_expectation(*setting.number);
    case ValueType::kChoice:
      return setting.field.choices.size() == 1 ? setting.field.choices[0]
                                               : fmt::format("one of {}", fmt::join(setting.field.choices, ", "));
  }
  return "";
}

bool changes_training(std::string_view key) {
  const Setting* setting = find_setting(key);
  return setting != nullptr && setting->changes_training;
}

}  // namespace gemma_sft
