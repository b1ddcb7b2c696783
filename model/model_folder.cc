#include "model/model_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "configs/error.h"
#include "data/files/folder_entry.h"
#include "data/files/input_file.h"
#include "data/files/sha256.h"
#include "data/text/tokenizer.h"
#include "model/json_fields.h"
#include "model/weight_files.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxFileBytes = 256 << 20;    // Gemma's tokenizer.json has 33 MB
constexpr uint64_t kMaxConfigBytes = 1 << 20;    // of config.json and generation_config.json
constexpr uint64_t kMaxTemplateBytes = 8 << 20;  // Gemma's tokenizer_config.json has 1.2 MB
constexpr std::array<const char*, 9> kTokenizerFiles = {
    "tokenizer.model",         "tokenizer.json",           "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json",        "chat_template.json",
    "chat_template.jinja",     "preprocessor_config.json", "processor_config.json"};

// An id, a list of some, or null.
std::vector<int64_t> ids_of(const JsonValue& root, const std::string& name, const fs::path& file) {
  std::vector<int64_t> ids;
  const auto take = [&](const JsonValue& value) {
    const std::optional<int64_t> id = value.kind() == JsonKind::kNumber ? value.integer() : std::nullopt;
    if (!id) {
      throw Error(ErrorKind::kModel, fmt::format("{}: \"{}\": expected an id or a list of ids, found {}", file.string(),
                                                 name, value.description()));
    }
    ids.push_back(*id);
    return true;
  };
  const std::optional<JsonValue> value = find_member(root, name);
  if (!value || value->kind() == JsonKind::kNull) return ids;
  if (value->kind() == JsonKind::kArray) {
    value->each_element(take);
  } else {
    take(*value);
  }
  return ids;
}

bool has_tokenizer(const fs::path& folder) {
  return has_folder_entry(folder, "tokenizer.model") || has_folder_entry(folder, "tokenizer.json");
}

}  // namespace

std::string write_digested_file(FileSystem& files, const fs::path& path, const std::string& bytes) {
  write_new_file(files, path, bytes);
  return sha256_hex(bytes);
}

std::map<std::string, std::string> copy_tokenizer_files(FileSystem& files, const fs::path& from, const fs::path& to) {
  std::map<std::string, std::string> digests;
  for (const char* name : kTokenizerFiles) {
    if (has_folder_entry(from, name)) {
      digests[name] = write_digested_file(files, to / name, read_file(from / name, kMaxFileBytes));
    }
  }
  return digests;
}

void require_carried_files(const fs::path& model_folder) {
  for (const char* name : kTokenizerFiles) {
    if (has_folder_entry(model_folder, name)) InputFile(model_folder / name);
  }
  find_stop_ids(model_folder);  // reads generation_config.json
}

std::string with_dtype(const std::string& config_json, ModelDtype dtype) {
  std::vector<std::pair<size_t, size_t>> places;  // of the values, in the order of the text
  const std::function<void(const JsonValue&)> find = [&](const JsonValue& object) {
    object.each_member([&](const JsonMember& member) {
      if ((member.name == "torch_dtype" || member.name == "dtype") && member.value.kind() == JsonKind::kString) {
        places.emplace_back(member.value.byte(), member.value.raw().size());
      } else if (member.name == "text_config" && member.value.kind() == JsonKind::kObject) {
        find(member.value);
      }
      return true;
    });
  };
  find(require_json_object(config_json, "config.json"));
  std::string text = config_json;
  for (auto place = places.rbegin(); place != places.rend(); ++place) {
    text.replace(place->first, place->second, json_quoted(config_dtype_name(dtype)));
  }
  return text;
}

std::string new_generation_config(const fs::path& model_folder) {
  std::vector<int64_t> ends;
  int64_t bos = 2, pad = 0;
  if (has_tokenizer(model_folder)) {
    const std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::load(model_folder);
    bos = tokenizer->bos_id();
    pad = tokenizer->pad_id();
    ends = {tokenizer->eos_id(), tokenizer->end_of_turn_id()};
  } else {
    const fs::path path = model_folder / "config.json";
    const std::string text = read_file(path, kMaxConfigBytes);
    const JsonValue root = require_json_object(text, path.string());
    ends = ids_of(root, "eos_token_id", path);
    if (ends.empty()) ends = {1};
    if (const auto ids = ids_of(root, "bos_token_id", path); !ids.empty()) bos = ids.front();
    if (const auto ids = ids_of(root, "pad_token_id", path); !ids.empty()) pad = ids.front();
  }
  return fmt::format("{{\n  \"bos_token_id\": {},\n  \"eos_token_id\": [\n    {}\n  ],\n  \"pad_token_id\": {}\n}}\n",
                     bos, fmt::join(ends, ",\n    "), pad);
}

std::string with_end_of_turn(const std::string& generation_config, const fs::path& model_folder) {
  const fs::path path = model_folder / "generation_config.json";
  const JsonValue root = require_json_object(generation_config, path.string());
  if (!has_tokenizer(model_folder)) return generation_config;
  std::shared_ptr<const Tokenizer> tokenizer;
  try {
    tokenizer = Tokenizer::load(model_folder);
  } catch (const Error&) {
    return generation_config;  // carried as the tokenizer's own files are
  }
  std::vector<int64_t> ids = ids_of(root, "eos_token_id", path);
  if (std::find(ids.begin(), ids.end(), tokenizer->end_of_turn_id()) != ids.end()) return generation_config;
  if (ids.empty()) ids.push_back(tokenizer->eos_id());
  ids.push_back(tokenizer->end_of_turn_id());
  const std::string list = fmt::format("[{}]", fmt::join(ids, ", "));
  std::string text = generation_config;
  if (const std::optional<JsonValue> value = find_member(root, "eos_token_id")) {
    return text.replace(value->byte(), value->raw().size(), list);
  }
  bool is_empty = true;
  root.each_member([&](const JsonMember&) { return is_empty = false; });
  return text.insert(root.byte() + 1, fmt::format("\n  \"eos_token_id\": {}{}", list, is_empty ? "\n" : ","));
}

std::vector<int64_t> find_stop_ids(const fs::path& model_folder) {
  for (const char* name : {"generation_config.json", "config.json"}) {
    if (!has_folder_entry(model_folder, name)) continue;
    const fs::path path = model_folder / name;
    const std::string text = read_file(path, kMaxConfigBytes);
    const JsonValue root = require_json_object(text, path.string());
    if (std::vector<int64_t> ids = ids_of(root, "eos_token_id", path); !ids.empty()) return ids;
    const std::optional<JsonValue> inner = find_member(root, "text_config");
    if (!inner) continue;
    if (std::vector<int64_t> ids = ids_of(*inner, "eos_token_id", path); !ids.empty()) return ids;
  }
  return {};
}

std::string read_chat_template(const fs::path& model_folder) {
  if (has_folder_entry(model_folder, "chat_template.jinja")) {
    return read_file(model_folder / "chat_template.jinja", kMaxTemplateBytes);
  }
  for (const char* name : {"tokenizer_config.json", "chat_template.json"}) {
    if (!has_folder_entry(model_folder, name)) continue;
    const fs::path path = model_folder / name;
    const std::string text = read_file(path, kMaxTemplateBytes);
    const std::optional<JsonValue> found = find_member(require_json_object(text, path.string()), "chat_template");
    if (!found) continue;
    if (found->kind() == JsonKind::kString) return found->string();
    if (found->kind() != JsonKind::kArray) continue;
    std::string chosen;
    found->each_element([&](const JsonValue& entry) {
      const std::optional<JsonValue> called = find_member(entry, "name"), its = find_member(entry, "template");
      const bool is_default = called && called->kind() == JsonKind::kString && called->string() == "default";
      if (is_default && its && its->kind() == JsonKind::kString) chosen = its->string();
      return chosen.empty();
    });
    if (!chosen.empty()) return chosen;
  }
  return "";
}

bool is_gemma_template(const std::string& chat_template) {
  return chat_template.find("<start_of_turn>") != std::string::npos;
}

}  // namespace gemma_sft
