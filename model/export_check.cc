#include "model/export_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <system_error>

#include "configs/error.h"
#include "configs/module_pattern.h"
#include "configs/value_reader.h"
#include "data/files/digest_list.h"
#include "data/files/file_system.h"
#include "data/files/folder_entry.h"
#include "data/files/safetensors.h"
#include "data/files/sha256.h"
#include "data/files/utf8.h"
#include "data/text/tokenizer.h"
#include "model/adapter_config.h"
#include "model/gemma_config.h"
#include "model/image_text_names.h"
#include "model/json_fields.h"
#include "model/lora.h"
#include "model/model_folder.h"
#include "model/peft_folder.h"
#include "model/weight_files.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxJsonBytes = 1 << 20;
constexpr uint64_t kBlock = 8 << 20;
constexpr size_t kMostNamed = 8;

// Runs a check; what it throws is a problem, and the other checks still run.
void attempt(ExportVerdict& verdict, const std::function<void()>& check) {
  try {
    check();
  } catch (const Error& error) {
    verdict.problems.push_back(error.what());
  } catch (const std::exception& error) {
    verdict.problems.push_back(fmt::format("{}: {}", verdict.folder.string(), error.what()));
  }
}

void check_digests(ExportVerdict& verdict) {
  const auto wanted = find_digest_list(verdict.folder);
  if (!wanted) {
    verdict.notes.push_back(fmt::format("there is no {}: digests were not checked", kDigestListName));
    return;
  }
  for (const fs::path& path : list_folder(verdict.folder)) {
    const std::string name = path.filename().string();
    if (path.extension() == ".safetensors" && !wanted->contains(name)) {
      verdict.problems.push_back(fmt::format("{}: is not named in {}", shown_name(name), kDigestListName));
    }
  }
  for (const auto& [name, digest] : *wanted) {
    attempt(verdict, [&, &name = name, &digest = digest] {
      if (!has_folder_entry(verdict.folder, name)) {
        verdict.problems.push_back(fmt::format("{}: is in {} and not in the folder", name, kDigestListName));
      } else if (const std::string found = sha256_file(verdict.folder / name); found != digest) {
        verdict.problems.push_back(fmt::format("{}: SHA-256 {}..., expected {}...; it was changed since it was written",
                                               name, found.substr(0, 12), digest.substr(0, 12)));
      } else {
        ++verdict.digests;
      }
    });
  }
}

// Numbers of a tensor that are NaN or infinite: all bits of the exponent are set.
template <typename Word>
uint64_t count_not_finite(const std::vector<char>& bytes, uint64_t size, Word exponent) {
  uint64_t count = 0;
  for (uint64_t at = 0; at + sizeof(Word) <= size; at += sizeof(Word)) {
    Word word;
    std::memcpy(&word, bytes.data() + at, sizeof(Word));
    count += (word & exponent) == exponent ? 1 : 0;
  }
  return count;
}

uint64_t count_not_finite(const SafetensorsFile& file, const TensorInfo& info, std::vector<char>& block) {
  uint64_t count = 0;
  for (uint64_t begin = info.begin; begin < info.end; begin += kBlock) {
    TensorInfo part = info;
    part.begin = begin;
    part.end = std::min(info.end, begin + kBlock);
    block.resize(kBlock);
    file.read(part, block.data());
    switch (info.dtype) {
      case TensorDtype::kF32: count += count_not_finite<uint32_t>(block, part.bytes(), 0x7f800000u); break;
      case TensorDtype::kBF16: count += count_not_finite<uint16_t>(block, part.bytes(), uint16_t{0x7f80}); break;
      case TensorDtype::kF16: count += count_not_finite<uint16_t>(block, part.bytes(), uint16_t{0x7c00}); break;
      default: break;
    }
  }
  return count;
}

void check_numbers(ExportVerdict& verdict, const SafetensorsFile& file, const TensorInfo& info,
                   std::vector<char>& block) {
  ++verdict.tensors;
  verdict.tensor_bytes += info.bytes();
  if (const uint64_t bad = count_not_finite(file, info, block); bad > 0) {
    verdict.problems.push_back(
        fmt::format("{}: {} {} NaN or infinite", info.name, bad, bad == 1 ? "number is" : "numbers are"));
  }
}

// vLLM, llama.cpp and Ollama choose the model by its first architecture.
void check_architecture(ExportVerdict& verdict) {
  const fs::path path = verdict.folder / "config.json";
  const std::string text = read_file(path, kMaxJsonBytes);
  JsonProblems ignored;
  JsonFields fields(require_json_object(text, path.string()), "", ignored);
  if (fields.strings("architectures").value_or(std::vector<std::string>{}).size() != 1) {
    verdict.problems.push_back(path.string() + ": \"architectures\": expected the name of one class of transformers");
  }
}

// What a glob of model*.safetensors takes beside what the index names: llama.cpp's converter would write it too, and
// Ollama also looks one folder down.
void check_stray_weights(ExportVerdict& verdict, const std::set<fs::path>& used) {
  const auto is_weight_file = [](const fs::path& path) {
    return path.extension() == ".safetensors" && path.filename().string().starts_with("model");
  };
  for (const fs::path& path : list_folder(verdict.folder)) {
    const std::string name = path.filename().string();
    if (is_weight_file(path) && !used.contains(path.filename())) {
      verdict.problems.push_back(fmt::format(
          "{}: is no part of the model; llama.cpp's converter and Ollama would take it in; move it elsewhere",
          shown_name(name)));
    }
    std::error_code unknown;
    if (!fs::is_directory(path, unknown)) continue;
    try {
      const std::vector<fs::path> inner = list_folder(path);
      if (std::any_of(inner.begin(), inner.end(), is_weight_file)) {
        verdict.notes.push_back(
            fmt::format("{} holds weights, too, which Ollama would take for this model's", shown_name(name)));
      }
    } catch (const Error& error) {
      verdict.notes.push_back(fmt::format("weights in it were not looked for: {}", error.what()));
    }
  }
}

void check_weights(ExportVerdict& verdict, const GemmaConfig& config) {
  const WeightFiles weights(verdict.folder, config);
  if (!config.dtype.empty() && config.dtype != config_dtype_name(weights.dtype())) {
    verdict.problems.push_back(
        fmt::format("config.json: the dtype is \"{}\", but the weights are {}; transformers would convert them",
                    config.dtype, config_dtype_name(weights.dtype())));
  }
  std::vector<char> block;
  std::set<fs::path> used;
  const auto check = [&](const WeightFiles::Tensor& tensor) {
    check_numbers(verdict, *tensor.file, *tensor.info, block);
    used.insert(tensor.file->path().filename());
  };
  for (const NamedShape& tensor : text_tensors(config)) check(weights.text(tensor.name));
  for (const WeightFiles::Tensor& tensor : weights.carried()) check(tensor);
  check_stray_weights(verdict, used);
}

// Gives the id of <end_of_turn>.
int64_t check_tokenizer(ExportVerdict& verdict, const GemmaConfig& config) {
  const bool has_model = has_folder_entry(verdict.folder, "tokenizer.model");
  const std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::load(verdict.folder);
  if (tokenizer->size() > config.vocab_size) {
    verdict.problems.push_back(
        fmt::format("the tokenizer has {} pieces, the embedding {} rows", tokenizer->size(), config.vocab_size));
  }
  if (!has_model)
    verdict.notes.push_back("there is no tokenizer.model, without which llama.cpp does not convert a model");
  return tokenizer->end_of_turn_id();
}

void check_generation_config(ExportVerdict& verdict, const GemmaConfig& config) {
  if (!has_folder_entry(verdict.folder, "generation_config.json")) {
    verdict.notes.push_back(
        "there is no generation_config.json: programs do not know that <end_of_turn> ends an answer");
    return;
  }
  const fs::path path = verdict.folder / "generation_config.json";
  const std::string text = read_file(path, kMaxJsonBytes);
  JsonProblems problems;
  JsonFields fields(require_json_object(text, path.string()), "", problems);
  const auto check = [&](const char* name, const JsonValue& value) {
    const std::optional<int64_t> id = value.kind() == JsonKind::kNumber ? value.integer() : std::nullopt;
    if (!id || *id < 0 || *id >= config.vocab_size) {
      problems.add(fmt::format("\"{}\": expected an id from 0 to {}, found {}", name, config.vocab_size - 1,
                               value.description()));
    }
    return true;
  };
  for (const char* name : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    const std::optional<JsonValue> value = fields.take(name);
    if (!value) continue;
    if (value->kind() == JsonKind::kArray) {
      value->each_element([&](const JsonValue& id) { return check(name, id); });
    } else {
      check(name, *value);
    }
  }
  if (!problems.empty()) verdict.problems.push_back(problems.message(path.string()));
}

// What a program that chats with the model would not do as Gemma does.
void check_chat(ExportVerdict& verdict, int64_t end_of_turn) {
  const std::string chat_template = read_chat_template(verdict.folder);
  if (chat_template.empty()) {
    verdict.notes.push_back(
        "there is no chat template, neither in tokenizer_config.json nor as chat_template.jinja: transformers cannot "
        "write a chat");
  } else if (!is_gemma_template(chat_template)) {
    verdict.notes.push_back("the chat template is not Gemma's: it has no <start_of_turn>");
  }
  const std::vector<int64_t> stops = find_stop_ids(verdict.folder);
  if (!stops.empty() && std::find(stops.begin(), stops.end(), end_of_turn) == stops.end()) {
    verdict.notes.push_back("\"eos_token_id\" does not have <end_of_turn>: transformers goes on after an answer");
  }
}

void verify_model(ExportVerdict& verdict) {
  std::optional<GemmaConfig> config;
  attempt(verdict, [&] { config = load_gemma_config(verdict.folder); });
  if (!config) return;
  attempt(verdict, [&] { check_architecture(verdict); });
  attempt(verdict, [&] { check_weights(verdict, *config); });
  std::optional<int64_t> end_of_turn;
  attempt(verdict, [&] { end_of_turn = check_tokenizer(verdict, *config); });
  attempt(verdict, [&] { check_generation_config(verdict, *config); });
  if (end_of_turn && verdict.problems.empty()) attempt(verdict, [&] { check_chat(verdict, *end_of_turn); });
}

struct Pair {
  const TensorInfo* a = nullptr;
  const TensorInfo* b = nullptr;
};

// Module path (as we name it) -> its two matrices. What peft, vLLM and llama.cpp do not know by name is a problem.
std::map<std::string, Pair> find_pairs(ExportVerdict& verdict, const SafetensorsFile& file) {
  constexpr std::array<const char*, 7> kLayers = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                  "gate_proj", "up_proj", "down_proj"};
  std::map<std::string, Pair> pairs;
  for (const TensorInfo& info : file.tensors()) {
    const std::optional<LoraTensorName> name = parse_lora_tensor_name(info.name);
    const std::string path = name ? text_name(name->module) : "";
    const std::string leaf = path.substr(path.rfind('.') + 1);
    if (std::find(kLayers.begin(), kLayers.end(), leaf) == kLayers.end()) {
      verdict.problems.push_back(
          fmt::format("{}: {}: is no matrix of an adapter of a linear layer; vLLM and llama.cpp refuse it",
                      kAdapterWeightsFile, quoted_excerpt(info.name, 200)));
      continue;
    }
    (name->matrix == LoraMatrix::kA ? pairs[path].a : pairs[path].b) = &info;
  }
  if (pairs.empty()) verdict.problems.push_back(fmt::format("{}: has no adapter of any layer", kAdapterWeightsFile));
  return pairs;
}

bool is_float(TensorDtype dtype) {
  return dtype == TensorDtype::kF32 || dtype == TensorDtype::kBF16 || dtype == TensorDtype::kF16;
}

// A [rank, in] and B [out, rank].
void check_pair(ExportVerdict& verdict, const std::string& path, const Pair& pair, int64_t rank) {
  if (pair.a == nullptr || pair.b == nullptr) {
    verdict.problems.push_back(fmt::format("{}: {} is missing", path, pair.a == nullptr ? "lora_A" : "lora_B"));
    return;
  }
  for (const TensorInfo* info : {pair.a, pair.b}) {
    const size_t rank_at = info == pair.a ? 0 : 1;
    if (info->shape.size() != 2 || info->shape[rank_at] != rank) {
      verdict.problems.push_back(
          fmt::format("{}: shape [{}]; \"r\" is {}", info->name, fmt::join(info->shape, ", "), rank));
    }
    if (!is_float(info->dtype)) {
      verdict.problems.push_back(
          fmt::format("{}: dtype {}, expected F32, BF16 or F16", info->name, safetensors_name(info->dtype)));
    }
  }
}

bool is_meant(const LoraOptions& options, const std::string& path) {
  return std::any_of(options.target_modules.begin(), options.target_modules.end(),
                     [&](const std::string& pattern) { return matches_target(path, pattern); });
}

// peft would drop the matrices of a layer that target_modules does not mean.
void check_targets(ExportVerdict& verdict, const LoraOptions& options, const std::map<std::string, Pair>& pairs) {
  for (const auto& [path, pair] : pairs) {
    if (is_meant(options, path)) continue;
    verdict.problems.push_back(fmt::format("{}: \"target_modules\" does not mean this layer", path));
  }
}

void check_against_base(ExportVerdict& verdict, const LoraOptions& options, const std::map<std::string, Pair>& pairs) {
  const std::string name = read_adapter_base(verdict.folder).name;
  if (name.empty()) {
    verdict.notes.push_back("\"base_model_name_or_path\" is empty: whoever loads the adapter must name the base model");
    return;
  }
  std::error_code unknown;  // a name too long for the system is that of no folder
  const bool is_inside = fs::exists(verdict.folder / name / "config.json", unknown);
  const fs::path base = is_inside ? verdict.folder / name : fs::path(name);
  if (!fs::exists(base / "config.json", unknown)) {
    verdict.notes.push_back(
        fmt::format("the base {} is not here: the layers were not compared with it", shown_name(name)));
    return;
  }
  std::map<std::string, std::vector<int64_t>> layers;  // path -> [out, in]
  for (const NamedShape& tensor : text_tensors(load_gemma_config(base))) {
    const std::string path = tensor.name.substr(0, tensor.name.rfind('.'));
    if (tensor.shape.size() == 2 && path != "model.embed_tokens") layers[path] = tensor.shape;
  }
  for (const auto& [path, pair] : pairs) {
    const auto layer = layers.find(path);
    if (layer == layers.end()) {
      verdict.problems.push_back(fmt::format("{}: the base {} has no such layer", path, base.string()));
    } else if (pair.a != nullptr && pair.b != nullptr && pair.a->shape.size() == 2 && pair.b->shape.size() == 2 &&
               (pair.a->shape[1] != layer->second[1] || pair.b->shape[0] != layer->second[0])) {
      verdict.problems.push_back(fmt::format("{}: A [{}] and B [{}] do not fit the base's [{}]", path,
                                             fmt::join(pair.a->shape, ", "), fmt::join(pair.b->shape, ", "),
                                             fmt::join(layer->second, ", ")));
    }
  }
  for (const auto& [path, shape] : layers) {
    if (is_meant(options, path) && !pairs.contains(path)) {
      verdict.problems.push_back(fmt::format("{}: \"target_modules\" means this layer, which has no matrices", path));
    }
  }
}

void verify_adapter(ExportVerdict& verdict) {
  std::optional<LoraOptions> options;
  attempt(verdict, [&] { options = load_adapter_config(verdict.folder); });
  if (!options) return;
  if (options->alpha != std::floor(options->alpha)) {
    verdict.notes.push_back(fmt::format("\"lora_alpha\" is {}: vLLM expects a whole number", options->alpha));
  }
  if (options->rslora) {
    verdict.notes.push_back(
        "\"use_rslora\" is true: llama.cpp does not read it and scales by lora_alpha / r; give it the merged model");
  }
  attempt(verdict, [&] {
    if (!has_folder_entry(verdict.folder, kAdapterWeightsFile)) {
      verdict.problems.push_back(fmt::format("{}: not found", kAdapterWeightsFile));
      return;
    }
    const SafetensorsFile file(verdict.folder / kAdapterWeightsFile);
    const std::map<std::string, Pair> pairs = find_pairs(verdict, file);
    for (const auto& [path, pair] : pairs) check_pair(verdict, path, pair, options->rank);
    check_targets(verdict, *options, pairs);
    attempt(verdict, [&] { check_against_base(verdict, *options, pairs); });
    std::vector<char> block;
    for (const TensorInfo& info : file.tensors()) check_numbers(verdict, file, info, block);
  });
}

}  // namespace

bool is_exported_folder(const fs::path& folder) {
  return fs::exists(folder / "config.json") || is_adapter_folder(folder);
}

ExportVerdict verify_export(const fs::path& folder) {
  ExportVerdict verdict;
  verdict.folder = folder;
  verdict.adapter = is_adapter_folder(folder);
  attempt(verdict, [&] { check_digests(verdict); });
  if (verdict.adapter) {
    verify_adapter(verdict);
  } else {
    verify_model(verdict);
  }
  if (verdict.problems.size() > kMostNamed) {
    const size_t more = verdict.problems.size() - kMostNamed;
    verdict.problems.resize(kMostNamed);
    verdict.problems.push_back(fmt::format("and {} more", more));
  }
  return verdict;
}

}  // namespace gemma_sft
