#include "model/model_init.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <string_view>
#include <thread>
#include <vector>

#include "configs/error.h"
#include "data/text/tokenizer.h"
#include "model/float_bits.h"
#include "model/model_folder.h"
#include "model/weight_files.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxShardBytes = 5'000'000'000;

// SplitMix64's output function: a good hash of a counter.
uint64_t mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t tensor_key(uint64_t seed, std::string_view name) {
  uint64_t key = mixed(seed);
  for (const char c : name) key = mixed(key ^ static_cast<unsigned char>(c));
  return key;
}

double unit_interval(uint64_t bits) { return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53; }  // (0, 1)

// Box-Muller on a counter: element i depends on (key, i) alone, so threads can take any part.
void fill_normal(float* values, uint64_t begin, uint64_t end, uint64_t key, double deviation) {
  for (uint64_t i = begin; i < end; i += 2) {
    const double radius = deviation * std::sqrt(-2.0 * std::log(unit_interval(mixed(key ^ i))));
    const double angle = 2.0 * std::numbers::pi * unit_interval(mixed(~(key ^ i)));
    values[i - begin] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < end) values[i + 1 - begin] = static_cast<float>(radius * std::sin(angle));
  }
}

void store(const float* values, uint64_t count, ModelDtype dtype, char* bytes) {
  if (dtype == ModelDtype::kFp32) {
    std::copy_n(reinterpret_cast<const char*>(values), count * sizeof(float), bytes);
    return;
  }
  for (uint64_t i = 0; i < count; ++i) {
    const uint16_t bits = dtype == ModelDtype::kBf16 ? to_bf16_bits(values[i]) : to_fp16_bits(values[i]);
    bytes[2 * i] = static_cast<char>(bits & 0xff);
    bytes[2 * i + 1] = static_cast<char>(bits >> 8);
  }
}

// The tensor's bytes in `dtype`.
std::vector<char> random_tensor(uint64_t count, ModelDtype dtype, uint64_t key, double deviation) {
  constexpr uint64_t kBlock = 1 << 16;  // even, so that pairs stay together
  const uint64_t width = bytes_per_element(tensor_dtype(dtype));
  std::vector<char> bytes(count * width);
  const uint64_t blocks = (count + kBlock - 1) / kBlock;
  const uint64_t workers = std::clamp<uint64_t>(std::thread::hardware_concurrency(), 1, std::max<uint64_t>(blocks, 1));
  const auto work = [&](uint64_t worker) {
    std::vector<float> values(std::min(kBlock, count));
    for (uint64_t block = worker; block < blocks; block += workers) {
      const uint64_t begin = block * kBlock, end = std::min(count, begin + kBlock);
      fill_normal(values.data(), begin, end, key, deviation);
      store(values.data(), end - begin, dtype, bytes.data() + begin * width);
    }
  };
  std::vector<std::jthread> threads;
  for (uint64_t worker = 1; worker < workers; ++worker) threads.emplace_back(work, worker);
  work(0);
  return bytes;
}

// Gone again unless kept.
class TemporaryFolder {
 public:
  TemporaryFolder(FileSystem& files, fs::path path) : files_(files), path_(std::move(path)) {
    files_.remove_tree(path_);
    files_.make_directories(path_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    if (kept_) return;
    try {
      files_.remove_tree(path_);
    } catch (const Error&) {  // the error that brought us here is the one to report
    }
  }
  const fs::path& path() const { return path_; }
  void keep_as(const fs::path& destination) {
    files_.sync_directory(path_);
    files_.rename(path_, destination);
    kept_ = true;
    files_.sync_directory(destination.parent_path());
  }

 private:
  FileSystem& files_;
  fs::path path_;
  bool kept_ = false;
};

}  // namespace

void init_model_folder(const GemmaConfig& config, const fs::path& tokenizer_folder, const fs::path& destination,
                       ModelDtype dtype, uint64_t seed, FileSystem& files) {
  const fs::path folder = plain_path(destination);
  if (fs::exists(folder)) {
    throw Error(ErrorKind::kUsage, folder.string() + ": already there; give the name of a new folder");
  }
  if (config.image_text) {
    throw Error(ErrorKind::kModel,
                "a new model is text-only: give a config.json with model_type \"gemma3_text\" (the text_config of an "
                "image-text model)");
  }
  const std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::load(tokenizer_folder);
  GemmaConfig sized = config;
  if (sized.vocab_size == 0) sized.vocab_size = tokenizer->size();
  if (sized.vocab_size < tokenizer->size()) {
    throw Error(ErrorKind::kModel,
                fmt::format("vocab_size {} is less than the {} pieces of the tokenizer in {}; raise it",
                            sized.vocab_size, tokenizer->size(), tokenizer_folder.string()));
  }

  TemporaryFolder temporary(files,
                            folder.parent_path() / fmt::format(".{}.tmp-{}", folder.filename().string(), ::getpid()));
  std::vector<TensorSource> tensors;
  auto bytes = std::make_shared<std::vector<char>>();
  for (const NamedShape& tensor : text_tensors(sized)) {
    uint64_t count = 1;
    for (const int64_t extent : tensor.shape) count *= static_cast<uint64_t>(extent);
    const bool norm = tensor.shape.size() == 1;
    const uint64_t key = tensor_key(seed, tensor.name);
    tensors.push_back({tensor.name, tensor_dtype(dtype), tensor.shape, [=]() -> const void* {
                         *bytes = norm ? std::vector<char>(count * bytes_per_element(tensor_dtype(dtype)))
                                       : random_tensor(count, dtype, key, config.initializer_range);
                         return bytes->data();
                       }});
  }
  write_weight_files(files, temporary.path(), tensors, kMaxShardBytes);
  write_new_file(files, temporary.path() / "config.json",
                 to_config_json(sized, config_dtype_name(dtype),
                                {.pad = tokenizer->pad_id(), .eos = tokenizer->eos_id(), .bos = tokenizer->bos_id()}));
  copy_tokenizer_files(files, tokenizer_folder, temporary.path());
  write_new_file(files, temporary.path() / "generation_config.json", new_generation_config(temporary.path()));
  temporary.keep_as(folder);
}

}  // namespace gemma_sft
