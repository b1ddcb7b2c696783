#include "model/weight_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <set>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "model/json_fields.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr uint64_t kMaxIndexBytes = 64 << 20;
constexpr uint64_t kHeaderBytesPerTensor = 160;  // dtype, shape and offsets as JSON; more than they take
constexpr uint64_t kCompareBlock = 8 << 20;
constexpr std::array<const char*, 2> kImageTextPrefixes = {"language_model.model.", "model.language_model."};
constexpr std::array<const char*, 4> kVisionPrefixes = {"vision_tower.", "multi_modal_projector.",
                                                        "model.vision_tower.", "model.multi_modal_projector."};
constexpr std::array<const char*, 2> kHeads = {"lm_head.weight", "language_model.lm_head.weight"};

[[noreturn]] void fail(const fs::path& place, const std::string& what) {
  throw Error(ErrorKind::kModel, place.string() + ": " + what);
}

bool is_vision(const std::string& name) {
  return std::any_of(kVisionPrefixes.begin(), kVisionPrefixes.end(),
                     [&](const char* p) { return name.starts_with(p); });
}

bool is_head(const std::string& name) { return std::find(kHeads.begin(), kHeads.end(), name) != kHeads.end(); }

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// A shard's name comes from a file: it must not lead out of the folder.
void check_shard_name(const fs::path& index, const std::string& tensor, const std::string& name) {
  const bool plain = !name.empty() && name != "." && name != ".." &&
                     name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
  if (!plain) {
    fail(index, fmt::format("\"weight_map\" sends \"{}\" to {}; expected the name of a file in the same folder", tensor,
                            json_quoted(name)));
  }
}

// tensor -> shard.
std::map<std::string, std::string> read_index(const fs::path& index) {
  const std::string text = read_file(index, kMaxIndexBytes);
  const JsonValue root = require_json_object(text, index.string());
  std::map<std::string, std::string> shards;
  bool found = false;
  root.each_member([&](const JsonMember& member) {
    if (member.name != "weight_map") return true;
    found = member.value.kind() == JsonKind::kObject;
    if (!found) return false;
    member.value.each_member([&](const JsonMember& entry) {
      if (entry.value.kind() != JsonKind::kString) {
        fail(index, fmt::format("\"weight_map\": the file of \"{}\" is {}; expected a string", entry.name,
                                entry.value.description()));
      }
      const std::string name = entry.value.string();
      check_shard_name(index, entry.name, name);
      shards[entry.name] = name;
      return true;
    });
    return false;
  });
  if (!found || shards.empty())
    fail(index, "\"weight_map\" is missing or empty; expected an object from tensor to file name");
  return shards;
}

std::vector<SafetensorsFile> open_files(const fs::path& folder) {
  if (!fs::is_directory(folder)) fail(folder, "not found; expected a model folder in Hugging Face's layout");
  std::vector<SafetensorsFile> files;
  if (fs::exists(folder / kSingleFile)) {
    files.emplace_back(folder / kSingleFile);
    return files;
  }
  const fs::path index = folder / kIndexFile;
  if (!fs::exists(index)) {
    const bool pickle = fs::exists(folder / "pytorch_model.bin") || fs::exists(folder / "pytorch_model.bin.index.json");
    fail(folder,
         fmt::format("neither {} nor {} is there{}", kSingleFile, kIndexFile,
                     pickle ? "; pytorch_model.bin is a pickle, which is not read: load the model in transformers and "
                              "save_pretrained it, which writes safetensors"
                            : ""));
  }
  const std::map<std::string, std::string> shards = read_index(index);
  std::set<std::string> names;
  for (const auto& [tensor, shard] : shards) names.insert(shard);
  std::string absent;
  for (const std::string& name : names) {
    if (!fs::exists(folder / name)) absent += "\n  " + name;
  }
  if (!absent.empty()) fail(folder, fmt::format("{} names files that are not there:{}", kIndexFile, absent));
  std::string problems;
  std::set<std::string> present;
  for (const std::string& name : names) {
    files.emplace_back(folder / name);
    for (const TensorInfo& info : files.back().tensors()) {
      const auto entry = shards.find(info.name);
      if (entry == shards.end()) {
        problems += fmt::format("\n  \"{}\" is in {} and not in the index", info.name, name);
      } else if (entry->second != name) {
        problems += fmt::format("\n  \"{}\" is in {}, the index says {}", info.name, name, entry->second);
      }
      present.insert(info.name);
    }
  }
  for (const auto& [tensor, shard] : shards) {
    if (!present.contains(tensor)) problems += fmt::format("\n  \"{}\" is not in {}", tensor, shard);
  }
  if (!problems.empty()) fail(index, "index and files disagree:" + problems);
  return files;
}

std::optional<ModelDtype> model_dtype(TensorDtype dtype) {
  switch (dtype) {
    case TensorDtype::kF32: return ModelDtype::kFp32;
    case TensorDtype::kBF16: return ModelDtype::kBf16;
    case TensorDtype::kF16: return ModelDtype::kFp16;
    default: return std::nullopt;
  }
}

ModelDtype most_frequent(const std::map<ModelDtype, uint64_t>& elements) {
  ModelDtype best = ModelDtype::kBf16;
  uint64_t most = 0;
  for (const auto& [dtype, count] : elements) {
    if (count > most) {
      best = dtype;
      most = count;
    }
  }
  return best;
}

bool same_bytes(const WeightFiles::Tensor& a, const WeightFiles::Tensor& b) {
  if (a.info->dtype != b.info->dtype || a.info->shape != b.info->shape) return false;
  std::vector<char> left(std::min(kCompareBlock, a.info->bytes())), right(left.size());
  for (uint64_t at = 0; at < a.info->bytes(); at += left.size()) {
    const uint64_t size = std::min<uint64_t>(left.size(), a.info->bytes() - at);
    a.read(at, size, left.data());
    b.read(at, size, right.data());
    if (std::memcmp(left.data(), right.data(), size) != 0) return false;
  }
  return true;
}

std::string named_lines(const std::string& title, const std::vector<std::string>& names) {
  if (names.empty()) return "";
  std::string text = "\n  " + title + ":";
  for (const std::string& name : names) text += "\n    " + name;
  return text;
}

}  // namespace

TensorDtype tensor_dtype(ModelDtype dtype) {
  switch (dtype) {
    case ModelDtype::kFp32: return TensorDtype::kF32;
    case ModelDtype::kBf16: return TensorDtype::kBF16;
    case ModelDtype::kFp16: return TensorDtype::kF16;
  }
  throw Error(ErrorKind::kInternal, "unknown model dtype");
}

const char* config_dtype_name(ModelDtype dtype) {
  switch (dtype) {
    case ModelDtype::kFp32: return "float32";
    case ModelDtype::kBf16: return "bfloat16";
    case ModelDtype::kFp16: return "float16";
  }
  throw Error(ErrorKind::kInternal, "unknown model dtype");
}

std::vector<NamedShape> text_tensors(const GemmaConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t queries = config.num_heads * config.head_dim;
  const int64_t keys = config.num_kv_heads * config.head_dim;
  std::vector<NamedShape> all = {{kEmbedding, {config.vocab_size, hidden}}};
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const auto add = [&](const char* name, std::vector<int64_t> shape) {
      all.push_back({fmt::format("model.layers.{}.{}.weight", i, name), std::move(shape)});
    };
    add("self_attn.q_proj", {queries, hidden});
    add("self_attn.k_proj", {keys, hidden});
    add("self_attn.v_proj", {keys, hidden});
    add("self_attn.o_proj", {hidden, queries});
    if (config.qk_norm) {
      add("self_attn.q_norm", {config.head_dim});
      add("self_attn.k_norm", {config.head_dim});
    }
    add("mlp.gate_proj", {config.intermediate_size, hidden});
    add("mlp.up_proj", {config.intermediate_size, hidden});
    add("mlp.down_proj", {hidden, config.intermediate_size});
    add("input_layernorm", {hidden});
    add("post_attention_layernorm", {hidden});
    if (config.sandwich_norms) {
      add("pre_feedforward_layernorm", {hidden});
      add("post_feedforward_layernorm", {hidden});
    }
  }
  all.push_back({"model.norm.weight", {hidden}});
  return all;
}

void WeightFiles::Tensor::read(uint64_t offset, uint64_t size, void* destination) const {
  if (offset > info->bytes() || size > info->bytes() - offset) {
    throw Error(ErrorKind::kInternal, "read beyond the tensor " + info->name);
  }
  TensorInfo part = *info;
  part.begin += offset;
  part.end = part.begin + size;
  file->read(part, destination);
}

WeightFiles::WeightFiles(const fs::path& folder, const GemmaConfig& config) : files_(open_files(folder)) {
  std::map<std::string, Tensor> found;
  for (const SafetensorsFile& file : files_) {
    for (const TensorInfo& info : file.tensors()) found[info.name] = {&file, &info};
  }
  // Which prefix stands for "model." in these files?
  const auto has_prefix = [&](const std::string& prefix) {
    const auto first = found.lower_bound(prefix);
    return first != found.end() && first->first.starts_with(prefix);
  };
  std::string image_text_prefix;
  for (const char* prefix : kImageTextPrefixes) {
    if (has_prefix(prefix)) image_text_prefix = prefix;
  }
  if (config.image_text) {
    if (image_text_prefix.empty()) {
      fail(folder,
           fmt::format("config.json describes an image-text model (model_type \"gemma3\"), but no tensor's name starts "
                       "with \"{}\" or \"{}\"; a text-only model has model_type \"gemma3_text\"",
                       kImageTextPrefixes[0], kImageTextPrefixes[1]));
    }
    prefix_ = image_text_prefix;
  } else {
    if (!image_text_prefix.empty()) {
      fail(folder,
           fmt::format(
               "the tensors' names start with \"{}\", as in an image-text checkpoint, but config.json describes a "
               "text-only model; expected model_type \"gemma3\" with a text_config, or tensors named \"model...\"",
               image_text_prefix));
    }
    prefix_ = "model.";
  }

  std::vector<std::string> missing, misshapen, extra;
  std::map<ModelDtype, uint64_t> elements;
  for (const NamedShape& wanted : text_tensors(config)) {
    const std::string name = name_in_files(wanted.name);
    const auto entry = found.find(name);
    if (entry == found.end()) {
      missing.push_back(name);
      continue;
    }
    const Tensor tensor = entry->second;
    found.erase(entry);
    const std::optional<ModelDtype> dtype = model_dtype(tensor.info->dtype);
    if (tensor.info->shape != wanted.shape) {
      misshapen.push_back(
          fmt::format("{}: {}, expected {}", name, shape_text(tensor.info->shape), shape_text(wanted.shape)));
    } else if (!dtype) {
      misshapen.push_back(
          fmt::format("{}: dtype {}, expected BF16, F16 or F32", name, safetensors_name(tensor.info->dtype)));
    } else {
      elements[*dtype] += tensor.info->bytes() / bytes_per_element(tensor.info->dtype);
    }
    text_[wanted.name] = tensor;
  }
  dtype_ = most_frequent(elements);
  for (const auto& [name, tensor] : found) {
    if (config.image_text && is_vision(name)) {
      continue;
    } else if (is_head(name)) {
      const auto embedding = text_.find(kEmbedding);
      if (embedding != text_.end() && !same_bytes(tensor, embedding->second)) {
        misshapen.push_back(
            fmt::format("{}: differs from {}; an untied head is not supported", name, name_in_files(kEmbedding)));
      }
    } else {
      extra.push_back(fmt::format("{} {}", name, shape_text(tensor.info->shape)));
    }
  }
  for (const SafetensorsFile& file : files_) {
    for (const TensorInfo& info : file.tensors()) {
      if (config.image_text && is_vision(info.name)) carried_.push_back({&file, &info});
    }
  }
  if (!missing.empty() || !misshapen.empty() || !extra.empty()) {
    fail(folder,
         "the weights are not those of the model that config.json describes:" + named_lines("missing", missing) +
             named_lines("not usable", misshapen) + named_lines("not known", extra));
  }
}

WeightFiles::Tensor WeightFiles::text(const std::string& name) const {
  const auto entry = text_.find(name);
  if (entry == text_.end()) throw Error(ErrorKind::kInternal, "no such weight in the model: " + name);
  return entry->second;
}

std::string WeightFiles::name_in_files(const std::string& name) const {
  return prefix_ + name.substr(std::strlen("model."));
}

ModelDtype files_dtype(const fs::path& folder) {
  std::map<ModelDtype, uint64_t> elements;
  for (const SafetensorsFile& file : open_files(folder)) {
    for (const TensorInfo& info : file.tensors()) {
      const std::optional<ModelDtype> dtype = model_dtype(info.dtype);
      if (dtype && !is_vision(info.name)) elements[*dtype] += info.bytes() / bytes_per_element(info.dtype);
    }
  }
  return most_frequent(elements);
}

std::map<std::string, std::string> write_weight_files(FileSystem& files, const fs::path& destination,
                                                      const std::vector<TensorSource>& tensors,
                                                      uint64_t max_shard_bytes) {
  std::vector<std::vector<TensorSource>> shards(1);
  uint64_t total = 0, in_shard = 0;
  for (const TensorSource& tensor : tensors) {
    uint64_t bytes = bytes_per_element(tensor.dtype);
    for (const int64_t extent : tensor.shape) bytes *= static_cast<uint64_t>(extent);
    const uint64_t in_file = bytes + tensor.name.size() + kHeaderBytesPerTensor;
    if (in_shard > 0 && in_shard + in_file > max_shard_bytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(tensor);
    in_shard += in_file;
    total += bytes;
  }
  files.require_space(destination, total);
  std::map<std::string, std::string> digests;
  if (shards.size() == 1) {
    digests[kSingleFile] = write_safetensors(files, destination / kSingleFile, shards.front()).sha256;
    return digests;
  }
  std::map<std::string, std::string> weight_map;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    for (const TensorSource& tensor : shards[i]) weight_map[tensor.name] = name;
    digests[name] = write_safetensors(files, destination / name, shards[i]).sha256;
  }
  std::string index = fmt::format("{{\n  \"metadata\": {{\n    \"total_size\": {}\n  }},\n  \"weight_map\": {{", total);
  const char* separator = "\n";
  for (const auto& [tensor, shard] : weight_map) {
    index += fmt::format("{}    {}: {}", separator, json_quoted(tensor), json_quoted(shard));
    separator = ",\n";
  }
  index += "\n  }\n}\n";
  const std::unique_ptr<WritableFile> file = files.create(destination / kIndexFile);
  file->append(index);
  file->sync();
  file->close();
  digests[kIndexFile] = sha256_hex(index);
  return digests;
}

}  // namespace gemma_sft
