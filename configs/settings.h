// The one table of all settings: name, type, range, default, help, origin, and the field of RunConfig each one fills.
// The checks of load_config, `config schema|show|explain` (settings_text.h), the table in README.md and the tests come
// from it. Everything here is immutable; any thread may read it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "configs/run_config.h"

namespace gemma_sft {

enum class ValueType { kText, kWholeNumber, kNumber, kSwitch, kChoice, kTextList };

// std::monostate: not given. A choice is a std::string.
using Value = std::variant<std::monostate, bool, int64_t, double, std::string, std::vector<std::string>>;

// Who named the key first.
enum class SettingSource {
  kGuide,     // the two YAML files of the tunix-rt production guide
  kTunixRt,   // other training files of tunix-rt
  kGemmaSft,  // ours
};

struct WholeRange {
  int64_t minimum = 0;
  int64_t maximum = 0;
};
struct NumberRange {
  double minimum = 0;
  double maximum = 0;
  bool with_minimum = true;
  bool with_maximum = true;
};

// The field of RunConfig behind a key. `set` with std::monostate empties an optional field.
struct Field {
  ValueType type;
  bool optional;                     // can be "not given"
  std::vector<std::string> choices;  // of kChoice
  Value (*get)(const RunConfig&);
  void (*set)(RunConfig&, const Value&);
};

// A value that has a name of its own among users, and why it is not accepted.
struct RefusedValue {
  std::string value;
  std::string why;
};

struct Setting {
  std::string key;  // full path, e.g. "training.batch_size"
  Field field;
  SettingSource source = SettingSource::kGemmaSft;
  std::string help = {};                   // a sentence or two
  std::string not_given = {};              // of an optional field: what no value means
  std::optional<WholeRange> whole = {};    // kWholeNumber
  std::optional<NumberRange> number = {};  // kNumber
  std::vector<RefusedValue> refused = {};
  bool required = false;
  bool changes_training = true;  // does another value give other weights?
  bool names_run = true;         // is the value part of what the run id is a digest of?
  // Says what is wrong with a text or with a name in a list, or gives nothing; empty function: any will do.
  std::string (*text_problem)(const std::string&) = nullptr;
  // Where the value has no effect it is not written by to_yaml; empty function: it always has one.
  bool (*has_effect)(const RunConfig&) = nullptr;
  // For tests and documentation: a valid value that differs from the default, as YAML, and the other assignments
  // ("key=value") that it needs in order to have an effect. Empty where there is only one valid value.
  std::string example = {};
  std::vector<std::string> example_needs = {};
};

const std::vector<Setting>& settings();
const Setting* find_setting(std::string_view key);
// "training", "model.tunix_job_config", ...: is it the beginning of the path of a key?
bool is_section(std::string_view path);

// All keys, in the order of the table.
const std::vector<std::string>& setting_keys();

// What RunConfig{} holds.
Value default_value(const Setting& setting);

// One line of YAML: `2e-05`, `"a text"`, `["a", "b"]`, `null`. Choices are not quoted.
std::string yaml_text(const Setting& setting, const Value& value);

// "a whole number from 1 to 65536", "one of fail, skip", ...
std::string expectation(const Setting& setting);

// Whether a change of the key's value on resume gives other weights. output.*, evaluation.* and tunix.* do not.
bool changes_training(std::string_view key);

}  // namespace gemma_sft
