#include "configs/settings_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "configs/aliases.h"
#include "configs/environment.h"
#include "configs/error.h"
#include "configs/nearest_key.h"
#include "configs/scalar.h"
#include "configs/settings.h"

namespace gemma_sft {
namespace {

// ---- JSON, written rather than built: a list of members whose values are JSON already.

using Members = std::vector<std::pair<std::string, std::string>>;

std::string indented(const std::string& json) {
  std::string result;
  for (const char c : json) {
    result += c;
    if (c == '\n') result += "  ";
  }
  return result;
}

std::string object(const Members& members) {
  if (members.empty()) return "{}";
  std::vector<std::string> lines;
  for (const auto& [name, value] : members) {
    lines.push_back(fmt::format("  {}: {}", in_quotes(name), indented(value)));
  }
  return fmt::format("{{\n{}\n}}", fmt::join(lines, ",\n"));
}

std::string array(const std::vector<std::string>& values) { return fmt::format("[{}]", fmt::join(values, ", ")); }

std::string array_of_lines(const std::vector<std::string>& values) {
  if (values.empty()) return "[]";
  std::vector<std::string> lines;
  for (const std::string& value : values) lines.push_back("  " + indented(value));
  return fmt::format("[\n{}\n]", fmt::join(lines, ",\n"));
}

std::vector<std::string> all_quoted(const std::vector<std::string>& texts) {
  std::vector<std::string> result;
  for (const std::string& text : texts) result.push_back(in_quotes(text));
  return result;
}

// A value as YAML is JSON too, except that choices go without quotes there.
std::string json_text(const Setting& setting, const Value& value) {
  const bool is_choice = setting.field.type == ValueType::kChoice;
  if (is_choice && std::holds_alternative<std::string>(value)) {
    return in_quotes(std::get<std::string>(value));
  }
  return yaml_text(setting, value);
}

// ---- Words.

std::string type_name(ValueType type) {
  switch (type) {
    case ValueType::kText: return "text";
    case ValueType::kWholeNumber: return "whole number";
    case ValueType::kNumber: return "number";
    case ValueType::kSwitch: return "switch";
    case ValueType::kChoice: return "choice";
    case ValueType::kTextList: return "list";
  }
  return "";
}

std::string json_type(ValueType type) {
  switch (type) {
    case ValueType::kText:
    case ValueType::kChoice: return "string";
    case ValueType::kWholeNumber: return "integer";
    case ValueType::kNumber: return "number";
    case ValueType::kSwitch: return "boolean";
    case ValueType::kTextList: return "array";
  }
  return "";
}

std::string source_name(SettingSource source) {
  switch (source) {
    case SettingSource::kGuide: return "production guide";
    case SettingSource::kTunixRt: return "tunix-rt";
    case SettingSource::kGemmaSft: return "gemma-sft";
  }
  return "";
}

std::string default_words(const Setting& setting) {
  if (setting.required) return "required";
  const Value value = default_value(setting);
  if (std::holds_alternative<std::monostate>(value)) {
    return fmt::format("not given: {}", setting.not_given);
  }
  return yaml_text(setting, value);
}

// Text that may be a long list of words, as the user would write it.
std::string shown_value(const Setting& setting, const Value& value) {
  if (std::holds_alternative<std::monostate>(value)) return "not given";
  if (std::holds_alternative<std::string>(value)) return std::get<std::string>(value);
  if (std::holds_alternative<std::vector<std::string>>(value)) {
    return fmt::format("[{}]", fmt::join(std::get<std::vector<std::string>>(value), ", "));
  }
  return yaml_text(setting, value);
}

std::string alias_words(const Alias& alias) {
  std::string words = alias.target.empty() ? fmt::format("has no effect here: {}", alias.why)
                                           : fmt::format("stands for {}", alias.target);
  std::vector<std::string> translations;
  for (const auto& [from, to] : alias.translations) {
    translations.push_back(fmt::format("{} is {}", from, to));
  }
  if (!translations.empty()) words += fmt::format("; {}", fmt::join(translations, ", "));
  if (!alias.accepted.empty()) {
    words += fmt::format("; anything but {} is refused", fmt::join(alias.accepted, ", "));
  }
  for (const RefusedValue& refused : alias.refused) {
    words += fmt::format("; {} is refused: {}", refused.value, refused.why);
  }
  return words;
}

std::vector<std::string> keys_in(const std::string& section) {
  std::vector<std::string> keys;
  for (const std::string& key : setting_keys()) {
    if (key.compare(0, section.size() + 1, section + ".") == 0) keys.push_back(key);
  }
  return keys;
}

std::vector<std::string> aliases_of(const std::string& key) {
  std::vector<std::string> names;
  for (const Alias& alias : aliases()) {
    if (alias.target == key) names.push_back(alias.key);
  }
  return names;
}

std::vector<std::string> variables_of(const std::string& key) {
  std::vector<std::string> names;
  for (const EnvironmentVariable& variable : environment_variables()) {
    if (variable.key == key) names.push_back(variable.name);
  }
  return names;
}

[[noreturn]] void throw_unknown(const std::string& key) {
  std::vector<std::string> candidates = setting_keys();
  for (const Alias& alias : aliases()) candidates.push_back(alias.key);
  for (const std::string section : {"model", "dataset", "training", "lora", "evaluation", "output", "tunix"}) {
    candidates.push_back(section);
  }
  const Nearest nearest = nearest_key(key, candidates);
  throw Error(ErrorKind::kUsage, nearest.close
                                     ? fmt::format("{}: unknown key; did you mean {}?", key, nearest.name)
                                     : fmt::format("{}: unknown key; the nearest known one is {}, and `gemma-sft "
                                                   "config schema` lists all",
                                                   key, nearest.name));
}

// ---- The schema.

std::string setting_schema(const Setting& setting) {
  Members members;
  std::string description = setting.help;
  if (setting.field.optional) description += fmt::format(" Not given: {}.", setting.not_given);
  members.emplace_back("description", in_quotes(description));
  std::vector<std::string> types = {in_quotes(json_type(setting.field.type))};
  std::vector<std::string> choices = all_quoted(setting.field.choices);
  for (std::string& choice : choices) {
    if (choice != "\"true\"" && choice != "\"false\"") continue;  // a truth value in YAML
    choice = choice.substr(1, choice.size() - 2);
    if (types.size() == 1) types.push_back("\"boolean\"");
  }
  if (setting.field.optional) types.push_back("\"null\"");
  members.emplace_back("type", types.size() > 1 ? array(types) : types[0]);
  if (setting.field.type == ValueType::kChoice) {
    if (setting.field.optional) choices.push_back("null");
    members.emplace_back("enum", array(choices));
  }
  if (setting.field.type == ValueType::kText) members.emplace_back("minLength", "1");
  if (setting.field.type == ValueType::kTextList) {
    members.emplace_back("items", object({{"type", "\"string\""}, {"minLength", "1"}}));
    members.emplace_back("minItems", "1");
    members.emplace_back("uniqueItems", "true");
  }
  if (setting.whole) {
    members.emplace_back("minimum", std::to_string(setting.whole->minimum));
    members.emplace_back("maximum", std::to_string(setting.whole->maximum));
  }
  if (setting.number) {
    const NumberRange& range = *setting.number;
    members.emplace_back(range.with_minimum ? "minimum" : "exclusiveMinimum", print_number(range.minimum));
    members.emplace_back(range.with_maximum ? "maximum" : "exclusiveMaximum", print_number(range.maximum));
  }
  if (!setting.required) members.emplace_back("default", json_text(setting, default_value(setting)));
  return object(members);
}

// The schema of everything whose path begins with `prefix` ("" or "training.").
std::string section_schema(const std::string& prefix) {
  Members properties;
  std::vector<std::string> required;
  for (const Setting& setting : settings()) {
    if (setting.key.compare(0, prefix.size(), prefix) != 0) continue;
    const std::string rest = setting.key.substr(prefix.size());
    const std::string name = rest.substr(0, rest.find('.'));
    const bool is_known =
        std::any_of(properties.begin(), properties.end(), [&](const auto& member) { return member.first == name; });
    if (is_known) continue;
    const bool is_key = name == rest;
    properties.emplace_back(name, is_key ? setting_schema(setting) : section_schema(prefix + name + "."));
    if (is_key && setting.required) required.push_back(name);
  }
  Members members;
  if (prefix.empty()) {
    members.emplace_back("$schema", in_quotes("https://json-schema.org/draft/2020-12/schema"));
    members.emplace_back("title", in_quotes("Configuration of gemma-sft train"));
    required = {"model", "dataset"};
  }
  members.emplace_back("type", required.empty() ? array({"\"object\"", "\"null\""}) : "\"object\"");
  members.emplace_back("additionalProperties", "false");
  if (!required.empty()) members.emplace_back("required", array(all_quoted(required)));
  if (prefix == "dataset.") {
    members.emplace_back("anyOf", array({"{\"required\": [\"manifest_path\"]}", "{\"required\": [\"data_path\"]}"}));
  }
  members.emplace_back("properties", object(properties));
  return object(members);
}

// ---- Markdown.

std::string in_cell(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '|' || c == '<') result += '\\';
    result += c;
  }
  return result;
}

}  // namespace

std::string schema_json() { return section_schema("") + "\n"; }

std::string explain_key(const std::string& key) {
  if (const Setting* setting = find_setting(key)) {
    std::string text = fmt::format("{}\n  {}\n", setting->key, setting->help);
    const auto line = [&](const std::string& name, const std::string& value) {
      text += fmt::format("  {:<9}{}\n", name + ":", value);
    };
    line("type", type_name(setting->field.type));
    line("expects", expectation(*setting));
    line("default", default_words(*setting));
    line("source", source_name(setting->source));
    for (const RefusedValue& refused : setting->refused) {
      line("refused", fmt::format("{}: {}", refused.value, refused.why));
    }
    const std::vector<std::string> names = aliases_of(key);
    if (!names.empty()) line("aliases", fmt::format("{}", fmt::join(names, ", ")));
    const std::vector<std::string> variables = variables_of(key);
    if (!variables.empty()) line("variable", fmt::format("{}", fmt::join(variables, ", ")));
    if (!setting->example.empty()) {
      line("example", fmt::format("{}: {}", key.substr(key.rfind('.') + 1), setting->example));
    }
    line("resume",
         setting->changes_training ? "a changed value is another training run" : "may change when a run is resumed");
    return text;
  }
  if (const Alias* alias = find_alias(key)) {
    return fmt::format("{}\n  {}.\n", alias->key, alias_words(*alias));
  }
  if (is_section(key)) {
    std::string text = fmt::format("{}\n  a section with these keys:\n", key);
    for (const std::string& name : keys_in(key)) {
      text += fmt::format("  {}: {}\n", name, find_setting(name)->help);
    }
    return text;
  }
  throw_unknown(key);
}

std::string explain_key_json(const std::string& key) {
  if (const Setting* setting = find_setting(key)) {
    const Value standard = default_value(*setting);
    Members members = {
        {"key", in_quotes(setting->key)},
        {"type", in_quotes(type_name(setting->field.type))},
        {"expects", in_quotes(expectation(*setting))},
        {"required", setting->required ? "true" : "false"},
        {"default", setting->required ? "null" : json_text(*setting, standard)},
        {"not_given", setting->field.optional ? in_quotes(setting->not_given) : "null"},
        {"help", in_quotes(setting->help)},
        {"source", in_quotes(source_name(setting->source))},
        {"aliases", array(all_quoted(aliases_of(key)))},
        {"variables", array(all_quoted(variables_of(key)))},
        {"changes_training", setting->changes_training ? "true" : "false"},
    };
    return object(members) + "\n";
  }
  if (const Alias* alias = find_alias(key)) {
    return object({{"key", in_quotes(alias->key)},
                   {"alias_of", alias->target.empty() ? "null" : in_quotes(alias->target)},
                   {"help", in_quotes(alias_words(*alias))}}) +
           "\n";
  }
  if (is_section(key)) {
    return object({{"key", in_quotes(key)}, {"keys", array(all_quoted(keys_in(key)))}}) + "\n";
  }
  throw_unknown(key);
}

std::string show_config(const LoadedConfig& loaded) {
  constexpr size_t kWidestValue = 48;
  struct Row {
    std::string key, value, origin;
  };
  std::vector<Row> rows;
  size_t key_width = 0;
  size_t value_width = 0;
  for (const Setting& setting : settings()) {
    rows.push_back(
        {setting.key, shown_value(setting, setting.field.get(loaded.config)), loaded.origins.at(setting.key)});
    key_width = std::max(key_width, setting.key.size());
    value_width = std::max(value_width, std::min(rows.back().value.size(), kWidestValue));
  }
  std::string text;
  for (const Row& row : rows) {
    text += fmt::format("{:<{}}  {:<{}}  {}\n", row.key, key_width, row.value, value_width, row.origin);
  }
  return text;
}

std::string show_config_json(const LoadedConfig& loaded) {
  std::vector<std::string> rows;
  for (const Setting& setting : settings()) {
    rows.push_back(object({{"key", in_quotes(setting.key)},
                           {"value", json_text(setting, setting.field.get(loaded.config))},
                           {"origin", in_quotes(loaded.origins.at(setting.key))}}));
  }
  return object({{"file", in_quotes(loaded.file)},
                 {"settings", array_of_lines(rows)},
                 {"warnings", array_of_lines(all_quoted(loaded.warnings))}}) +
         "\n";
}

std::string settings_markdown() {
  std::string text = "| Key | Value | Default | Source | What it does |\n|---|---|---|---|---|\n";
  for (const Setting& setting : settings()) {
    std::string help = setting.help;
    for (const RefusedValue& refused : setting.refused) {
      help += fmt::format(" `{}` is refused: {}.", refused.value, refused.why);
    }
    const bool is_value = !setting.required && !std::holds_alternative<std::monostate>(default_value(setting));
    const std::string standard = default_words(setting);
    text +=
        fmt::format("| `{}` | {} | {} | {} | {} |\n", setting.key, in_cell(expectation(setting)),
                    is_value ? "`" + standard + "`" : in_cell(standard), source_name(setting.source), in_cell(help));
  }
  return text;
}

std::string aliases_markdown() {
  std::string text = "| Key of other files | Meaning here |\n|---|---|\n";
  for (const Alias& alias : aliases()) {
    text += fmt::format("| `{}` | {} |\n", alias.key, in_cell(alias_words(alias)));
  }
  return text;
}

std::string environment_markdown() {
  std::string text = "| Variable | Setting | What it does |\n|---|---|---|\n";
  for (const EnvironmentVariable& variable : environment_variables()) {
    text += fmt::format("| `{}` | {} | {} |\n", variable.name, variable.key.empty() ? "" : "`" + variable.key + "`",
                        variable.help);
  }
  return text;
}

}  // namespace gemma_sft
