#include "model/adapter_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "configs/configured_path.h"
#include "configs/error.h"
#include "configs/module_pattern.h"
#include "data/files/file_system.h"
#include "data/files/folder_entry.h"
#include "data/files/safetensors.h"
#include "data/files/utf8.h"
#include "model/image_text_names.h"
#include "model/json_fields.h"
#include "model/peft_folder.h"
#include "model/weight_files.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr const char* kEmbedding = "model.embed_tokens.weight";

// What does not change the numbers, or only how the adapter was started.
const std::set<std::string>& harmless_keys() {
  static const std::set<std::string> keys = {
      "auto_mapping", "base_model_name_or_path", "revision",       "inference_mode", "peft_version",
      "task_type",    "runtime_config",          "megatron_core",  "layers_pattern", "qalora_group_size",
      "loftq_config", "ensure_weight_tying",     "unsloth_version"};
  return keys;
}

// null, false, "", [] and {}: the feature is off.
bool is_off(const JsonValue& value) {
  switch (value.kind()) {
    case JsonKind::kNull: return true;
    case JsonKind::kBool: return !value.boolean();
    case JsonKind::kNumber: return false;
    case JsonKind::kString: return value.string().empty();
    case JsonKind::kArray: {
      bool empty = true;
      value.each_element([&](const JsonValue&) { return empty = false; });
      return empty;
    }
    case JsonKind::kObject: {
      bool empty = true;
      value.each_member([&](const JsonMember&) { return empty = false; });
      return empty;
    }
  }
  return false;
}

std::string read_config(const fs::path& folder) {
  const fs::path path = folder / kAdapterConfigFile;
  if (!has_folder_entry(folder, kAdapterConfigFile)) {
    throw Error(ErrorKind::kModel, path.string() + ": not found; expected an adapter folder as PEFT writes it");
  }
  return read_file(path, kMaxConfigBytes);
}

// Module paths of the adapter's tensors: in our names, ascending -> as the file has them. Their rank is looked at
// before anybody makes room for another one.
std::map<std::string, std::string> adapted_modules(const fs::path& folder, int64_t rank) {
  std::map<std::string, std::string> paths;
  if (!has_folder_entry(folder, kAdapterWeightsFile)) {
    throw Error(ErrorKind::kModel,
                (folder / kAdapterWeightsFile).string() + ": not found; adapter_config.json names its layers by it");
  }
  const SafetensorsFile file(folder / kAdapterWeightsFile);
  for (const TensorInfo& info : file.tensors()) {
    const std::optional<LoraTensorName> name = parse_lora_tensor_name(info.name);
    if (!name || name->matrix != LoraMatrix::kA) continue;
    if (info.shape.empty() || info.shape[0] != rank) {
      throw Error(ErrorKind::kModel,
                  fmt::format("{}: \"r\" is {}, but {} of {} has shape [{}]", (folder / kAdapterConfigFile).string(),
                              rank, quoted_excerpt(info.name, 200), kAdapterWeightsFile, fmt::join(info.shape, ", ")));
    }
    paths.emplace(text_name(name->module), name->module);
  }
  return paths;
}

// What the entries of target_modules mean among the adapted layers, in our names. Whole paths stand for an entry that
// fits only the file's names, such as "language_model.layers.0.mlp.up_proj", to which peft shortens long lists. An
// entry that means no layer is left out: peft passes over it as long as another one means some.
std::vector<std::string> meant_modules(const std::vector<std::string>& entries,
                                       const std::map<std::string, std::string>& modules) {
  std::vector<std::string> meant;
  for (const std::string& entry : entries) {
    const std::string ours = text_name(entry);
    if (std::any_of(modules.begin(), modules.end(),
                    [&](const auto& module) { return matches_target(module.first, ours); })) {
      meant.push_back(ours);
      continue;
    }
    for (const auto& [path, in_file] : modules) {
      if (matches_target(in_file, entry)) meant.push_back(path);
    }
  }
  return meant;
}

}  // namespace

LoraOptions load_adapter_config(const fs::path& folder) {
  const std::string name = (folder / kAdapterConfigFile).string();
  const std::string text = read_config(folder);
  const JsonValue root = require_json_object(text, name);
  JsonProblems problems;
  JsonFields fields(root, "", problems);
  if (const std::string type = fields.string("peft_type", ""); type != "LORA") {
    fields.refuse("peft_type", "only \"LORA\" is supported");
  }
  LoraOptions options;
  if (!fields.has("r")) fields.refuse("r", "expected the rank");
  options.rank = fields.integer("r", 8, 1, 1 << 20);
  if (!fields.has("lora_alpha")) fields.refuse("lora_alpha", "expected a number");
  options.alpha = fields.positive("lora_alpha", 8);
  options.dropout = fields.number("lora_dropout", 0);
  if (options.dropout < 0 || options.dropout >= 1) fields.refuse("lora_dropout", "expected a number from 0 to below 1");
  options.rslora = fields.boolean("use_rslora", false);
  if (const std::string bias = fields.string("bias", "none"); bias != "none") {
    fields.refuse("bias", "only \"none\" is supported");
  }
  // Some ways to start an adapter change the base weights as well; what is stored then is no delta to the published
  // model.
  if (const std::optional<JsonValue> start = fields.take("init_lora_weights");
      start && start->kind() == JsonKind::kString) {
    const std::string way = start->string();
    if (way != "gaussian" && way != "eva" && way != "orthogonal") {
      fields.refuse("init_lora_weights", "it changes the base weights; save the adapter as plain LoRA in peft first");
    }
  }
  bool by_tensors = false;
  const std::optional<JsonValue> targets = fields.take("target_modules");
  if (targets && targets->kind() == JsonKind::kArray) {
    options.target_modules = fields.strings("target_modules").value_or(std::vector<std::string>{});
  } else if (targets && targets->kind() != JsonKind::kString) {
    fields.refuse("target_modules", "expected an array of module names or a string");
  } else {
    by_tensors = true;
  }
  for (const char* key : {"layers_to_transform", "exclude_modules"}) {
    const std::optional<JsonValue> value = fields.take(key);
    if (value && !is_off(*value)) by_tensors = true;
  }
  for (const std::string& key : fields.left_over()) {
    if (harmless_keys().contains(key) || is_off(*fields.take(key))) continue;
    fields.refuse(key, "it is not supported");
  }
  if (!problems.empty()) throw Error(ErrorKind::kModel, problems.message(name));
  if (by_tensors || has_folder_entry(folder, kAdapterWeightsFile)) {
    const std::map<std::string, std::string> modules = adapted_modules(folder, options.rank);
    if (by_tensors) {
      options.target_modules.clear();
      for (const auto& [path, in_file] : modules) options.target_modules.push_back(path);
    } else {
      options.target_modules = meant_modules(options.target_modules, modules);
    }
  } else {
    for (std::string& target : options.target_modules) target = text_name(target);
  }
  if (options.target_modules.empty()) {
    throw Error(ErrorKind::kModel,
                name + ": \"target_modules\" names no module, and no tensor of " + kAdapterWeightsFile + " does");
  }
  return options;
}

void require_continuation(const LoraOptions& asked, const fs::path& folder, const GemmaConfig& config) {
  const LoraOptions stored = load_adapter_config(folder);
  const auto means = [](const LoraOptions& options, const std::string& path) {
    return std::any_of(options.target_modules.begin(), options.target_modules.end(),
                       [&](const std::string& pattern) { return matches_target(path, pattern); });
  };
  std::string different;
  const auto compare = [&](const char* key, const auto& ours, const auto& theirs) {
    if (ours != theirs) different += fmt::format("{}{} is {}", different.empty() ? "" : ", ", key, ours);
  };
  compare("lora.rank", asked.rank, stored.rank);
  compare("lora.alpha", asked.alpha, stored.alpha);
  compare("lora.rslora", asked.rslora, stored.rslora);
  for (const NamedShape& tensor : text_tensors(config)) {
    const std::string path = tensor.name.substr(0, tensor.name.rfind('.'));
    if (tensor.shape.size() != 2 || tensor.name == kEmbedding || means(asked, path) == means(stored, path)) continue;
    different += fmt::format("{}lora.target_modules {} {}", different.empty() ? "" : ", ",
                             means(asked, path) ? "means also" : "leaves out", path);
    break;
  }
  if (different.empty()) return;
  throw Error(
      ErrorKind::kUsage,
      fmt::format("lora.init_from: {}: the adapter was made otherwise ({}); continue it with lora: {{rank: {}, alpha: "
                  "{}, rslora: {}, target_modules: [{}]}}",
                  folder.string(), different, stored.rank, stored.alpha, stored.rslora,
                  fmt::join(stored.target_modules, ", ")));
}

std::filesystem::path find_initial_adapter(const LoraSection& lora, const std::filesystem::path& config_file) {
  return find_configured_path(*lora.init_from, config_file).value_or(*lora.init_from);
}

AdapterBase read_adapter_base(const fs::path& folder) {
  const std::string name = (folder / kAdapterConfigFile).string();
  const std::string text = read_config(folder);
  JsonProblems problems;
  JsonFields fields(require_json_object(text, name), "", problems);
  AdapterBase base{.name = fields.string("base_model_name_or_path", "")};
  if (const std::string revision = fields.string("revision", ""); !revision.empty()) base.revision = revision;
  if (!problems.empty()) throw Error(ErrorKind::kModel, problems.message(name));
  return base;
}

std::string to_adapter_config_json(const LoraOptions& options, const AdapterBase& base,
                                   const std::vector<std::string>& target_modules) {
  const auto number = [](double value) {
    return value == std::floor(value) && std::abs(value) < 1e15 ? fmt::format("{}", static_cast<int64_t>(value))
                                                                : fmt::format("{}", value);
  };
  std::string targets;
  for (const std::string& target : target_modules) {
    targets += fmt::format("{}\n    {}", targets.empty() ? "" : ",", json_quoted(target));
  }
  // Keys that vLLM and llama.cpp look for, and those with which peft says that a feature is off.
  return fmt::format(R"({{
  "alpha_pattern": {{}},
  "auto_mapping": null,
  "base_model_name_or_path": {},
  "bias": "none",
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "layers_pattern": null,
  "layers_to_transform": null,
  "lora_alpha": {},
  "lora_dropout": {},
  "modules_to_save": null,
  "peft_type": "LORA",
  "r": {},
  "rank_pattern": {{}},
  "revision": {},
  "target_modules": [{}
  ],
  "task_type": "CAUSAL_LM",
  "use_dora": false,
  "use_rslora": {}
}}
)",
                     json_quoted(base.name), number(options.alpha), number(options.dropout), options.rank,
                     base.revision ? json_quoted(*base.revision) : "null", targets, options.rslora);
}

}  // namespace gemma_sft
