#include "model/model_folder.h"

#include <fmt/format.h>

#include <array>
#include <functional>
#include <memory>
#include <utility>

#include "data/files/folder_entry.h"
#include "data/files/sha256.h"
#include "data/text/tokenizer.h"
#include "model/json_fields.h"
#include "model/weight_files.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxFileBytes = 256 << 20;  // Gemma's tokenizer.json has 33 MB
constexpr std::array<const char*, 9> kTokenizerFiles = {
    "tokenizer.model",         "tokenizer.json",           "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json",        "chat_template.json",
    "chat_template.jinja",     "preprocessor_config.json", "processor_config.json"};

std::vector<int64_t> ids_of(const JsonValue& root, const std::string& name) {
  std::vector<int64_t> ids;
  const auto take = [&](const JsonValue& value) {
    if (value.kind() == JsonKind::kNumber && value.integer()) ids.push_back(*value.integer());
    return true;
  };
  root.each_member([&](const JsonMember& member) {
    if (member.name != name) return true;
    if (member.value.kind() == JsonKind::kArray) {
      member.value.each_element(take);
    } else {
      take(member.value);
    }
    return false;
  });
  return ids;
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
  if (has_folder_entry(model_folder, "tokenizer.model") || has_folder_entry(model_folder, "tokenizer.json")) {
    const std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::load(model_folder);
    bos = tokenizer->bos_id();
    pad = tokenizer->pad_id();
    ends = {tokenizer->eos_id(), tokenizer->end_of_turn_id()};
  } else {
    const fs::path path = model_folder / "config.json";
    const std::string text = read_file(path, kMaxFileBytes);
    const JsonValue root = require_json_object(text, path.string());
    ends = ids_of(root, "eos_token_id");
    if (ends.empty()) ends = {1};
    if (const auto ids = ids_of(root, "bos_token_id"); !ids.empty()) bos = ids.front();
    if (const auto ids = ids_of(root, "pad_token_id"); !ids.empty()) pad = ids.front();
  }
  return fmt::format("{{\n  \"bos_token_id\": {},\n  \"eos_token_id\": [\n    {}\n  ],\n  \"pad_token_id\": {}\n}}\n",
                     bos, fmt::join(ends, ",\n    "), pad);
}

}  // namespace gemma_sft
