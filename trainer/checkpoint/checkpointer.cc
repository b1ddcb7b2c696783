#include "trainer/checkpoint/checkpointer.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <functional>
#include <memory>
#include <vector>

#include "configs/error.h"
#include "configs/load_config.h"
#include "data/files/safetensors.h"
#include "data/files/sha256.h"
#include "trainer/checkpoint/state_file.h"
#include "trainer/device.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kRandomFile = "random.safetensors";

struct NamedTensor {
  std::string name;
  at::Tensor tensor;  // shares storage with the live one
};

TensorDtype dtype_in_file(const at::Tensor& tensor, const std::string& name) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return TensorDtype::kF32;
    case at::kBFloat16: return TensorDtype::kBF16;
    case at::kByte: return TensorDtype::kU8;
    default: break;
  }
  throw Error(ErrorKind::kInternal, fmt::format("checkpoint: {} has a dtype that checkpoints do not hold", name));
}

std::vector<NamedTensor> model_tensors(const Gemma& model) {
  std::vector<NamedTensor> tensors;
  for (const Parameter& parameter : model.trainable_parameters()) tensors.push_back({parameter.name, parameter.tensor});
  return tensors;
}

std::vector<NamedTensor> optimizer_tensors(const Optimizer& optimizer) {
  std::vector<NamedTensor> tensors;
  for (const OptimizerMoments& moments : optimizer.moments()) {
    tensors.push_back({"exp_avg." + moments.name, moments.exp_avg});
    tensors.push_back({"exp_avg_sq." + moments.name, moments.exp_avg_sq});
    tensors.push_back({"step." + moments.name, moments.step});
  }
  return tensors;
}

std::vector<NamedTensor> random_tensors(c10::Device device) {
  std::vector<NamedTensor> tensors = {{"cpu", random_state(c10::Device(c10::kCPU))}};
  if (!device.is_cpu()) tensors.push_back({"cuda", random_state(device)});
  return tensors;
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
  const auto file = files.create(path);
  file->append(text);
  file->sync();
  file->close();
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

void restore_random_state(const fs::path& path, c10::Device device) {
  std::vector<NamedTensor> states = random_tensors(device);
  const SafetensorsFile file(path);
  for (NamedTensor& entry : states) {
    // Saved on a CPU and continued on a GPU: that generator keeps its seed, and the caller has warned.
    if (file.find(entry.name) == nullptr) continue;
    const TensorInfo& info = *file.find(entry.name);
    if (info.dtype != TensorDtype::kU8 || info.bytes() != entry.tensor.nbytes()) {
      throw Error(ErrorKind::kCheckpoint,
                  fmt::format("{}: {} is not a random state of this LibTorch", path.string(), entry.name));
    }
    file.read(info, entry.tensor.data_ptr());
    set_random_state(entry.name == "cpu" ? c10::Device(c10::kCPU) : device, entry.tensor);
  }
}

}  // namespace

Checkpointer::Checkpointer(CheckpointFolders& folders, const RunOrigin& origin, Gemma& model, Optimizer& optimizer,
                           FileSystem& files)
    : folders_(folders), origin_(origin), model_(model), optimizer_(optimizer), files_(files) {}

fs::path Checkpointer::save(const TrainState& state) {
  const std::vector<NamedTensor> weights = model_tensors(model_);
  const std::vector<NamedTensor> moments = optimizer_tensors(optimizer_);
  constexpr uint64_t kHeadersAndText = 1 << 20;
  const fs::path temporary = folders_.begin(state.step, bytes_of(weights) + bytes_of(moments) + kHeadersAndText);
  std::map<std::string, FileDigest> contents;
  contents[kModelFile] = write_tensors(files_, temporary / kModelFile, weights);
  contents[kOptimizerFile] = write_tensors(files_, temporary / kOptimizerFile, moments);
  contents[kRandomFile] = write_tensors(files_, temporary / kRandomFile, random_tensors(model_.options().device));
  contents[kConfigFileName] = write_text(files_, temporary / kConfigFileName, to_yaml(origin_.config));
  contents[kStateFileName] = write_text(files_, temporary / kStateFileName, state_json(state, origin_));
  folders_.publish(temporary, state.step, contents);
  return folders_.folder(state.step);
}

void Checkpointer::rotate(const TrainState& state, bool keep_best) {
  folders_.rotate(state.step, keep_best && state.best ? std::optional<int64_t>(state.best->step) : std::nullopt);
}

void Checkpointer::restore(const fs::path& checkpoint) {
  load_trained_weights(model_, checkpoint);
  read_tensors(checkpoint / kOptimizerFile, optimizer_tensors(optimizer_));
  restore_random_state(checkpoint / kRandomFile, model_.options().device);
}

void load_trained_weights(Gemma& model, const fs::path& checkpoint) {
  read_tensors(checkpoint / kModelFile, model_tensors(model));
}

}  // namespace gemma_sft
