#include "trainer/checkpoint/checkpointer.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <map>
#include <memory>

#include "configs/error.h"
#include "configs/load_config.h"
#include "data/files/safetensors.h"
#include "data/files/sha256.h"
#include "trainer/checkpoint/state_file.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kRandomFile = "random.safetensors";

TensorDtype dtype_in_file(const at::Tensor& tensor, const std::string& name) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return TensorDtype::kF32;
    case at::kBFloat16: return TensorDtype::kBF16;
    case at::kByte: return TensorDtype::kU8;
    default: break;
  }
  throw Error(ErrorKind::kInternal, fmt::format("checkpoint: {} has a dtype that checkpoints do not hold", name));
}

uint64_t bytes_of(const std::vector<NamedTensor>& tensors) {
  uint64_t bytes = 0;
  for (const NamedTensor& entry : tensors) bytes += entry.tensor.nbytes();
  return bytes;
}

FileDigest write_tensors(FileSystem& files, const fs::path& path, const std::vector<NamedTensor>& tensors) {
  std::vector<TensorSource> sources;
  // One copy on the host at a time, kept until the next tensor is asked for.
  const auto on_host = std::make_shared<at::Tensor>();
  for (const NamedTensor& entry : tensors) {
    sources.push_back({entry.name, dtype_in_file(entry.tensor, entry.name), entry.tensor.sizes().vec(),
                       [tensor = entry.tensor.detach(), on_host]() -> const void* {
                         *on_host = tensor.cpu().contiguous();
                         return on_host->const_data_ptr();
                       }});
  }
  const WrittenFile written = write_safetensors(files, path, sources);
  return {written.bytes, written.sha256};
}

FileDigest write_text(FileSystem& files, const fs::path& path, const std::string& text) {
  write_new_file(files, path, text);
  return {text.size(), sha256_hex(text)};
}

void read_tensors(const fs::path& path, const std::vector<NamedTensor>& tensors) {
  const c10::NoGradGuard no_grad;
  const SafetensorsFile file(path);
  if (file.tensors().size() != tensors.size()) {
    throw Error(ErrorKind::kCheckpoint, fmt::format("{}: holds {} tensors, this run has {}", path.string(),
                                                    file.tensors().size(), tensors.size()));
  }
  for (const NamedTensor& entry : tensors) {
    const TensorInfo* info = file.find(entry.name);
    if (info == nullptr) {
      throw Error(ErrorKind::kCheckpoint, fmt::format("{}: {} is missing", path.string(), entry.name));
    }
    if (info->dtype != dtype_in_file(entry.tensor, entry.name) || info->shape != entry.tensor.sizes().vec()) {
      throw Error(ErrorKind::kCheckpoint, fmt::format("{}: {} has another shape or dtype ({}) than in this run",
                                                      path.string(), entry.name, safetensors_name(info->dtype)));
    }
    at::Tensor target = entry.tensor.detach();
    at::Tensor on_host = target.is_cpu() && target.is_contiguous()
                             ? target
                             : at::empty(target.sizes(), at::TensorOptions().dtype(target.scalar_type()));
    file.read(*info, on_host.data_ptr());
    if (!on_host.is_same(target)) target.copy_(on_host);
  }
}

void read_random_states(const fs::path& path, std::vector<NamedTensor>& states) {
  const SafetensorsFile file(path);
  std::erase_if(states, [&](const NamedTensor& entry) { return file.find(entry.name) == nullptr; });
  for (const NamedTensor& entry : states) {
    const TensorInfo& info = *file.find(entry.name);
    if (info.dtype != TensorDtype::kU8 || info.bytes() != entry.tensor.nbytes()) {
      throw Error(ErrorKind::kCheckpoint,
                  fmt::format("{}: {} is not a random state of this LibTorch", path.string(), entry.name));
    }
    file.read(info, entry.tensor.data_ptr());
  }
}

}  // namespace

Checkpointer::Checkpointer(CheckpointFolders& folders, const RunOrigin& origin, FileSystem& files)
    : folders_(folders), origin_(origin), files_(files) {}

fs::path Checkpointer::save(const TrainState& state, const RunTensors& tensors) {
  constexpr uint64_t kHeadersAndText = 1 << 20;
  const uint64_t bytes = bytes_of(tensors.weights) + bytes_of(tensors.moments) + kHeadersAndText;
  const fs::path temporary = folders_.begin(state.step, bytes);
  std::map<std::string, FileDigest> contents;
  contents[kModelFile] = write_tensors(files_, temporary / kModelFile, tensors.weights);
  contents[kOptimizerFile] = write_tensors(files_, temporary / kOptimizerFile, tensors.moments);
  contents[kRandomFile] = write_tensors(files_, temporary / kRandomFile, tensors.random);
  contents[kConfigFileName] = write_text(files_, temporary / kConfigFileName, to_yaml(origin_.config));
  contents[kStateFileName] = write_text(files_, temporary / kStateFileName, state_json(state, origin_));
  folders_.publish(temporary, state.step, contents);
  return folders_.folder(state.step);
}

void read_checkpoint(const fs::path& checkpoint, RunTensors& tensors) {
  read_tensors(checkpoint / kModelFile, tensors.weights);
  read_tensors(checkpoint / kOptimizerFile, tensors.moments);
  read_random_states(checkpoint / kRandomFile, tensors.random);
}

void read_checkpoint_weights(const fs::path& checkpoint, const std::vector<NamedTensor>& weights) {
  read_tensors(checkpoint / kModelFile, weights);
}

}  // namespace gemma_sft
