#include "configs/value_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>

#include "configs/nearest_key.h"
#include "configs/scalar.h"
#include "configs/secrets.h"

namespace gemma_sft {
namespace {

constexpr size_t kLongestText = 4096;

ReadValue wrong(const Setting& setting, const YamlNode& node, const std::string& remedy = "") {
  std::string problem = fmt::format("expected {}, found {}", expectation(setting), found_text(node));
  if (!remedy.empty()) problem += "; " + remedy;
  return {{}, problem};
}

ReadValue unquote(const Setting& setting, const YamlNode& node) {
  return {
      {},
      fmt::format("expected {}, found the quoted text {}; remove the quotes", expectation(setting), found_text(node))};
}

// The first thing wrong with a text that is to be a path, a name or an address; empty: none.
std::string text_problem(const std::string& text) {
  const bool blank = std::all_of(text.begin(), text.end(), [](char c) { return c == ' '; });
  if (blank) return "must not be empty";
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return "must be one line without control characters";
    }
  }
  for (std::string_view rest = text; !rest.empty();) {
    const size_t length = utf8_length(rest);
    if (length == 0) return "must be UTF-8";
    rest.remove_prefix(length);
  }
  if (text.size() > kLongestText) return fmt::format("longer than {} bytes", kLongestText);
  return "";
}

// What this setting finds wrong with a text; empty: nothing.
std::string own_problem(const Setting& setting, const std::string& text) {
  return setting.text_problem != nullptr ? setting.text_problem(text) : "";
}

ReadValue read_text(const Setting& setting, const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar) return wrong(setting, node);
  if (!node.quoted && plain_meaning(node.text) != "text") {
    return {{},
            fmt::format("expected text, found the {} {}; put it into quotes: {}", plain_meaning(node.text),
                        shown_text(node.text), in_quotes(node.text))};
  }
  const std::string problem = text_problem(node.text);
  if (!problem.empty()) return {{}, problem};
  for (const RefusedValue& refused : setting.refused) {
    if (refused.value == node.text) {
      return {{}, fmt::format("{} is refused: {}", node.text, refused.why)};
    }
  }
  const std::string own = own_problem(setting, node.text);
  if (!own.empty()) return {{}, fmt::format("found {}; {}", found_text(node), own)};
  return {node.text, ""};
}

ReadValue read_choice(const Setting& setting, const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar) return wrong(setting, node);
  const std::vector<std::string>& choices = setting.field.choices;
  if (std::find(choices.begin(), choices.end(), node.text) != choices.end()) {
    return {node.text, ""};
  }
  for (const RefusedValue& refused : setting.refused) {
    if (refused.value == node.text) {
      return {{}, fmt::format("{} is refused: {}", node.text, refused.why)};
    }
  }
  const Nearest nearest = nearest_word(node.text, choices);
  return wrong(setting, node, nearest.close ? fmt::format("did you mean {}?", nearest.name) : std::string());
}

ReadValue read_switch(const Setting& setting, const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar) return wrong(setting, node);
  const std::optional<bool> on = parse_switch(node.text);
  if (node.quoted && on) return unquote(setting, node);
  if (node.quoted || !on) return wrong(setting, node, switch_remedy(node.text));
  return {*on, ""};
}

ReadValue read_whole_number(const Setting& setting, const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar) return wrong(setting, node);
  const std::optional<int64_t> number = parse_whole_number(node.text);
  if (node.quoted && number) return unquote(setting, node);
  if (node.quoted || !number) return wrong(setting, node, whole_number_remedy(node.text));
  if (*number < setting.whole->minimum || *number > setting.whole->maximum) {
    return wrong(setting, node);
  }
  return {*number, ""};
}

ReadValue read_number(const Setting& setting, const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar) return wrong(setting, node);
  const std::optional<double> number = parse_number(node.text);
  if (node.quoted && number) return unquote(setting, node);
  if (node.quoted || !number) return wrong(setting, node, number_remedy(node.text));
  const NumberRange& range = *setting.number;
  const bool above = range.with_minimum ? *number >= range.minimum : *number > range.minimum;
  const bool below = range.with_maximum ? *number <= range.maximum : *number < range.maximum;
  if (!above || !below) return wrong(setting, node);
  return {*number == 0 ? 0.0 : *number, ""};  // no negative zero
}

ReadValue read_list(const Setting& setting, const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kList) {
    const bool is_name = node.kind == YamlNode::Kind::kScalar && own_problem(setting, node.text).empty();
    return wrong(setting, node, is_name ? fmt::format("put it into brackets: [{}]", shown_text(node.text)) : "");
  }
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (const YamlNode& item : node.items) {
    if (item.kind != YamlNode::Kind::kScalar || (!item.quoted && plain_meaning(item.text) != "text")) {
      return {{}, fmt::format("expected {}, found {} in the list", expectation(setting), found_text(item))};
    }
    const std::string problem = text_problem(item.text);
    if (!problem.empty()) return {{}, fmt::format("a name in the list {}", problem)};
    if (!seen.insert(item.text).second) {
      return {{}, fmt::format("{} stands in the list twice", found_text(item))};
    }
    const std::string own = own_problem(setting, item.text);
    if (!own.empty()) return {{}, fmt::format("found {} in the list; {}", found_text(item), own)};
    names.push_back(item.text);
  }
  if (names.empty()) return {{}, fmt::format("expected {}, found an empty list", expectation(setting))};
  return {names, ""};
}

}  // namespace

std::string shown_text(const std::string& text, size_t longest) {
  // A file may hold a text of any size. A secret that is cut here lies far behind what is shown.
  const size_t looked_at = 8 * longest + kLongestText;
  std::string shown = without_controls(without_secrets(std::string_view(text).substr(0, looked_at)), "\n\r\t");
  if (shown.size() > longest || text.size() > looked_at) {
    size_t end = std::min(longest, shown.size());
    while (end > 0 && end < shown.size() && (static_cast<unsigned char>(shown[end]) & 0xc0) == 0x80) --end;
    shown = shown.substr(0, end) + "...";
  }
  std::string escaped = in_quotes(shown);
  // Quotes and backslashes need no escape where no quotes are put around the text.
  std::string result;
  for (size_t i = 1; i + 1 < escaped.size(); ++i) {
    if (escaped[i] == '\\' && (escaped[i + 1] == '"' || escaped[i + 1] == '\\')) ++i;
    result += escaped[i];
  }
  return result;
}

std::string shown_name(const std::string& name) { return shown_text(name, 255); }

std::string found_text(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNothing: return "nothing";
    case YamlNode::Kind::kList: return "a list";
    case YamlNode::Kind::kMap: return "a section";
    case YamlNode::Kind::kScalar: break;
  }
  const std::string shown = shown_text(node.text);
  const bool is_text = node.quoted || plain_meaning(node.text) == "text";
  return is_text ? '"' + shown + '"' : shown;
}

ReadValue read_value(const Setting& setting, const YamlNode& node) {
  if (node.kind == YamlNode::Kind::kNothing) {
    if (setting.field.optional && node.says_null) return {};
    std::string problem = fmt::format("has no value; expected {}", expectation(setting));
    if (setting.field.optional) problem += fmt::format(", or null for: {}", setting.not_given);
    return {{}, problem};
  }
  switch (setting.field.type) {
    case ValueType::kText: return read_text(setting, node);
    case ValueType::kChoice: return read_choice(setting, node);
    case ValueType::kSwitch: return read_switch(setting, node);
    case ValueType::kWholeNumber: return read_whole_number(setting, node);
    case ValueType::kNumber: return read_number(setting, node);
    case ValueType::kTextList: return read_list(setting, node);
  }
  return {};
}

}  // namespace gemma_sft
