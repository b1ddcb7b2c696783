#include "model/adapter_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>

#include "configs/configured_path.h"
#include "configs/error.h"
#include "configs/module_pattern.h"
#include "data/files/file_system.h"
#include "data/files/folder_entry.h"
#include "data/files/safetensors.h"
#include "model/json_fields.h"
#include "model/weight_files.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kWeightsFile = "adapter_model.safetensors";
constexpr const char* kPrefix = "base_model.model.";
constexpr const char* kEmbedding = "model.embed_tokens.weight";
// How the layers of an image-text model are called: today, in transformers before 4.52, and by us.
constexpr std::array<const char*, 2> kImageTextPaths = {"model.language_model.", "language_model.model."};
constexpr const char* kTextPath = "model.";

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
  const fs::path path = folder / kConfigFile;
  if (!has_folder_entry(folder, kConfigFile)) {
    throw Error(ErrorKind::kModel, path.string() + ": not found; expected an adapter folder as PEFT writes it");
  }
  return read_file(path, kMaxConfigBytes);
}

// Module paths of the adapter's tensors, in our names, ascending.
std::vector<std::string> adapted_modules(const fs::path& folder) {
  std::set<std::string> paths;
  if (!has_folder_entry(folder, kWeightsFile)) {
    throw Error(ErrorKind::kModel,
                (folder / kWeightsFile).string() + ": not found; adapter_config.json names its layers by it");
  }
  const SafetensorsFile file(folder / kWeightsFile);
  for (const TensorInfo& info : file.tensors()) {
    const size_t end = info.name.rfind(".lora_A.weight");
    if (info.name.starts_with(kPrefix) && end != std::string::npos) {
      const size_t begin = std::string(kPrefix).size();
      paths.insert(text_module_path(info.name.substr(begin, end - begin)));
    }
  }
  return {paths.begin(), paths.end()};
}

}  // namespace

std::string image_text_module_path(const std::string& path) {
  return kImageTextPaths[0] + path.substr(std::string(kTextPath).size());
}

std::string text_module_path(const std::string& path) {
  for (const char* prefix : kImageTextPaths) {
    if (path.starts_with(prefix)) return kTextPath + path.substr(std::string(prefix).size());
  }
  return path;
}

LoraOptions load_adapter_config(const fs::path& folder) {
  const std::string name = (folder / kConfigFile).string();
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
    for (const std::string& target : fields.strings("target_modules").value_or(std::vector<std::string>{})) {
      options.target_modules.push_back(text_module_path(target));
    }
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
  if (by_tensors) {
    options.target_modules = adapted_modules(folder);
  } else if (has_folder_entry(folder, kWeightsFile)) {
    // peft passes over names that mean no layer of its model, as long as one does.
    const std::vector<std::string> modules = adapted_modules(folder);
    std::erase_if(options.target_modules, [&](const std::string& target) {
      return std::none_of(modules.begin(), modules.end(),
                          [&](const std::string& path) { return matches_target(path, target); });
    });
  }
  if (options.target_modules.empty()) {
    throw Error(ErrorKind::kModel,
                name + ": \"target_modules\" names no module, and no tensor of " + kWeightsFile + " does");
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

std::string adapter_base_name(const fs::path& folder) {
  const std::string name = (folder / kConfigFile).string();
  const std::string text = read_config(folder);
  JsonProblems problems;
  JsonFields fields(require_json_object(text, name), "", problems);
  const std::string base = fields.string("base_model_name_or_path", "");
  if (!problems.empty()) throw Error(ErrorKind::kModel, problems.message(name));
  return base;
}

std::string to_adapter_config_json(const LoraOptions& options, const std::string& base_name,
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
  "revision": null,
  "target_modules": [{}
  ],
  "task_type": "CAUSAL_LM",
  "use_dora": false,
  "use_rslora": {}
}}
)",
                     json_quoted(base_name), number(options.alpha), number(options.dropout), options.rank, targets,
                     options.rslora);
}

}  // namespace gemma_sft
