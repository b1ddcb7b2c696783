#include "model/weight_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <set>

#include "configs/error.h"
#include "data/files/folder_entry.h"
#include "data/files/pickle.h"
#include "data/files/sha256.h"
#include "data/files/utf8.h"
#include "model/image_text_names.h"
#include "model/json_fields.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr uint64_t kMaxIndexBytes = 8 << 20;     // Gemma 3 27B's has 110 KB
constexpr uint64_t kHeaderBytesPerTensor = 160;  // dtype, shape and offsets as JSON; more than they take
constexpr const char* kInner = "\n    ";         // below a title
constexpr uint64_t kCompareBlock = 8 << 20;
constexpr std::array<const char*, 4> kVisionPrefixes = {"vision_tower.", "multi_modal_projector.",
                                                        "model.vision_tower.", "model.multi_modal_projector."};
constexpr std::array<const char*, 2> kHeads = {"lm_head.weight", "language_model.lm_head.weight"};

// A tensor's name as it is where it can be printed so, else quoted and escaped.
std::string printable(const std::string& name) {
  const std::string quoted = quoted_excerpt(name, 200);
  return quoted == '"' + name + '"' ? name : quoted;
}

[[noreturn]] void fail(const fs::path& place, const std::string& what) {
  throw Error(ErrorKind::kModel, place.string() + ": " + what);
}

bool is_vision(const std::string& name) {
  return std::any_of(kVisionPrefixes.begin(), kVisionPrefixes.end(),
                     [&](const char* p) { return name.starts_with(p); });
}

bool is_head(const std::string& name) { return std::find(kHeads.begin(), kHeads.end(), name) != kHeads.end(); }

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Lines of a message; so many at most, for a hostile file could make millions.
class NamedLines {
 public:
  explicit NamedLines(const char* indent = "\n  ") : indent_(indent) {}
  void add(const std::string& line) {
    if (++count_ <= kMostShown) text_ += indent_ + line;
  }
  bool empty() const { return count_ == 0; }
  std::string text() const {
    return count_ <= kMostShown ? text_ : text_ + fmt::format("{}and {} more", indent_, count_ - kMostShown);
  }
  std::string titled(const std::string& title) const { return empty() ? "" : "\n  " + title + ":" + text(); }

 private:
  static constexpr size_t kMostShown = 100;
  std::string indent_;
  std::string text_;
  size_t count_ = 0;
};

// What to say of a folder that has no safetensors: the weights may be there as pickles.
std::string absent_weights(const fs::path& folder) {
  std::string text = fmt::format("neither {} nor {} is there", kSingleFile, kIndexFile);
  for (const char* name :
       {"pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "consolidated.00.pth"}) {
    if (const std::string pickle = recognise_pickle_file(folder / name); !pickle.empty()) {
      return fmt::format("{}; of {}: {}", text, name, pickle);
    }
  }
  if (fs::exists(folder / "pytorch_model.bin") || fs::exists(folder / "pytorch_model.bin.index.json")) {
    text +=
        "; pytorch_model.bin files are pickles, which are not read: load the model in transformers and "
        "save_pretrained it, which writes safetensors";
  }
  return text;
}

// A shard's name comes from a file: it must not lead out of the folder.
void check_shard_name(const fs::path& index, const std::string& tensor, const std::string& name) {
  const bool plain = !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
                     name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
  if (!plain) {
    fail(index, fmt::format("\"weight_map\" sends {} to {}; expected the name of a file in the same folder",
                            quoted_excerpt(tensor), quoted_excerpt(name)));
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
        fail(index, fmt::format("\"weight_map\": the file of {} is {}; expected a string", quoted_excerpt(entry.name),
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
  if (has_folder_entry(folder, kSingleFile)) {
    files.emplace_back(folder / kSingleFile);
    return files;
  }
  const fs::path index = folder / kIndexFile;
  if (!has_folder_entry(folder, kIndexFile)) fail(folder, absent_weights(folder));
  const std::map<std::string, std::string> shards = read_index(index);
  std::set<std::string> names;
  for (const auto& [tensor, shard] : shards) names.insert(shard);
  NamedLines absent;
  for (const std::string& name : names) {
    if (!has_folder_entry(folder, name)) absent.add(printable(name));
  }
  if (!absent.empty()) fail(folder, fmt::format("{} names files that are not there:{}", kIndexFile, absent.text()));
  NamedLines problems;
  std::set<std::string> present;
  for (const std::string& name : names) {
    files.emplace_back(folder / name);
    for (const TensorInfo& info : files.back().tensors()) {
      const auto entry = shards.find(info.name);
      if (entry == shards.end()) {
        problems.add(fmt::format("{} is in {} and not in the index", quoted_excerpt(info.name), printable(name)));
      } else if (entry->second != name) {
        problems.add(fmt::format("{} is in {}, the index says {}", quoted_excerpt(info.name), printable(name),
                                 printable(entry->second)));
      }
      present.insert(info.name);
    }
  }
  for (const auto& [tensor, shard] : shards) {
    if (!present.contains(tensor))
      problems.add(fmt::format("{} is not in {}", quoted_excerpt(tensor), printable(shard)));
  }
  if (!problems.empty()) fail(index, "index and files disagree:" + problems.text());
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
  for (const std::string_view prefix : kImageTextPrefixes) {
    if (has_prefix(std::string(prefix))) image_text_prefix = prefix;
  }
  if (config.image_text) {
    if (image_text_prefix.empty()) {
      fail(folder,
           fmt::format("config.json describes an image-text model (model_type \"gemma3\"), but no tensor's name starts "
                       "with \"{}\" or \"{}\"; a text-only model has model_type \"gemma3_text\"",
                       kImageTextPrefixes[1], kImageTextPrefixes[0]));
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

  NamedLines missing(kInner), misshapen(kInner), extra(kInner);
  std::map<ModelDtype, uint64_t> elements;
  for (const NamedShape& wanted : text_tensors(config)) {
    const std::string name = name_in_files(wanted.name);
    const auto entry = found.find(name);
    if (entry == found.end()) {
      missing.add(name);
      continue;
    }
    const Tensor tensor = entry->second;
    found.erase(entry);
    const std::optional<ModelDtype> dtype = model_dtype(tensor.info->dtype);
    if (tensor.info->shape != wanted.shape) {
      misshapen.add(fmt::format("{}: {}, expected {}", name, shape_text(tensor.info->shape), shape_text(wanted.shape)));
    } else if (!dtype) {
      misshapen.add(fmt::format("{}: dtype {}, expected BF16, F16 or F32", name, safetensors_name(tensor.info->dtype)));
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
        misshapen.add(
            fmt::format("{}: differs from {}; an untied head is not supported", name, name_in_files(kEmbedding)));
      }
    } else {
      extra.add(fmt::format("{} {}", printable(name), shape_text(tensor.info->shape)));
    }
  }
  for (const SafetensorsFile& file : files_) {
    for (const TensorInfo& info : file.tensors()) {
      if (config.image_text && is_vision(info.name)) carried_.push_back({&file, &info});
    }
  }
  if (!missing.empty() || !misshapen.empty() || !extra.empty()) {
    fail(folder, "the weights are not those of the model that config.json describes:" + missing.titled("missing") +
                     misshapen.titled("not usable") + extra.titled("not known"));
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
  write_new_file(files, destination / kIndexFile, index);
  digests[kIndexFile] = sha256_hex(index);
  return digests;
}

}  // namespace gemma_sft
