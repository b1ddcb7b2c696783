#include "configs/resolved_yaml.h"

#include <algorithm>
#include <string_view>
#include <variant>
#include <vector>

#include "configs/settings.h"

namespace gemma_sft {
namespace {

std::string_view section_of(std::string_view key) { return key.substr(0, key.rfind('.')); }

// The lines that open `section`, as far as `open` has not opened them yet.
std::string section_lines(std::string_view section, std::string_view open) {
  std::string lines;
  size_t depth = 0;
  for (size_t begin = 0; begin <= section.size(); ++depth) {
    const size_t dot = std::min(section.find('.', begin), section.size());
    const std::string_view path = section.substr(0, dot);
    const bool is_open =
        open.substr(0, path.size()) == path && (open.size() == path.size() || open[path.size()] == '.');
    if (!is_open || open.empty()) {
      lines += std::string(2 * depth, ' ') + std::string(section.substr(begin, dot - begin)) + ":\n";
    }
    begin = dot + 1;
  }
  return lines;
}

enum class Extent { kAll, kWhatNamesTheRun };

std::string print(const RunConfig& config, Extent extent) {
  std::string text;
  std::string open;
  for (const Setting& setting : settings()) {
    const std::string_view section = section_of(setting.key);
    if (extent == Extent::kWhatNamesTheRun && !setting.names_run) continue;
    if (section == "tunix" && !config.tunix.present) continue;
    if (setting.has_effect && !setting.has_effect(config)) continue;
    const Value value = setting.field.get(config);
    if (std::holds_alternative<std::monostate>(value)) continue;
    if (section != open) text += section_lines(section, open);
    open = section;
    size_t depth = 0;
    for (const char c : setting.key) depth += c == '.' ? 1 : 0;
    text +=
        std::string(2 * depth, ' ') + setting.key.substr(section.size() + 1) + ": " + yaml_text(setting, value) + "\n";
  }
  TunixSection nothing_but_present;
  nothing_but_present.present = true;
  if (config.tunix == nothing_but_present) text += "tunix: {}\n";
  return text;
}

}  // namespace

std::string to_yaml(const RunConfig& config) { return print(config, Extent::kAll); }

std::string identity_yaml(const RunConfig& config) { return print(config, Extent::kWhatNamesTheRun); }

}  // namespace gemma_sft
