#include "configs/config_difference.h"

#include <variant>

#include "configs/settings.h"

namespace gemma_sft {
namespace {

bool has_effect(const Setting& setting, const RunConfig& config) {
  if (setting.key == "training.num_epochs") return !config.training.max_steps;
  return !setting.has_effect || setting.has_effect(config);
}

bool only_trains_longer(const Setting& setting, const RunConfig& before, const RunConfig& now) {
  if (setting.key == "training.max_steps") {
    return before.training.max_steps && now.training.max_steps && *now.training.max_steps > *before.training.max_steps;
  }
  if (setting.key == "training.num_epochs") {
    // With max_steps on one side only, that key is the difference to show.
    return before.training.max_steps || now.training.max_steps || now.training.num_epochs > before.training.num_epochs;
  }
  return false;
}

std::string shown(const Setting& setting, const Value& value) {
  return std::holds_alternative<std::monostate>(value) ? "not given" : yaml_text(setting, value);
}

}  // namespace

std::vector<ConfigDifference> training_differences(const RunConfig& before, const RunConfig& now) {
  std::vector<ConfigDifference> differences;
  for (const Setting& setting : settings()) {
    if (!setting.changes_training) continue;
    if (!has_effect(setting, before) && !has_effect(setting, now)) continue;
    const Value old_value = setting.field.get(before);
    const Value new_value = setting.field.get(now);
    if (old_value == new_value || only_trains_longer(setting, before, now)) continue;
    differences.push_back({setting.key, shown(setting, old_value), shown(setting, new_value)});
  }
  return differences;
}

}  // namespace gemma_sft
