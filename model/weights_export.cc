#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <memory>

#include "configs/error.h"
#include "data/files/folder_entry.h"
#include "model/finite.h"
#include "model/model_folder.h"
#include "model/weights.h"

namespace gemma_sft {
namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;

at::ScalarType scalar_type(ModelDtype dtype) {
  switch (dtype) {
    case ModelDtype::kFp32: return at::kFloat;
    case ModelDtype::kBf16: return at::kBFloat16;
    case ModelDtype::kFp16: return at::kHalf;
  }
  throw Error(ErrorKind::kInternal, "unknown model dtype");
}

// On the host, contiguous, rounded to nearest even.
at::Tensor converted(const std::string& name, const at::Tensor& tensor, ModelDtype dtype) {
  const at::Tensor result = tensor.detach().to(scalar_type(dtype)).to(at::kCPU).contiguous();
  if (is_finite(result)) return result;
  require_finite(name, tensor);
  if (dtype == ModelDtype::kFp16) {
    throw Error(ErrorKind::kModel, name +
                                       ": a value is beyond the range of fp16 (65504); write bf16 or fp32 instead "
                                       "(output.model_dtype)");
  }
  throw Error(ErrorKind::kModel,
              name + ": a value is beyond the range of bf16 (3.39e38); write fp32 instead (output.model_dtype)");
}

std::vector<int64_t> shape_of(const at::Tensor& tensor) { return tensor.sizes().vec(); }

}  // namespace

std::map<std::string, std::string> export_model(const Gemma& model, const std::filesystem::path& base_folder,
                                                const std::filesystem::path& destination, FileSystem& files,
                                                const ExportOptions& options) {
  at::NoGradGuard no_grad;
  const WeightFiles base(base_folder, model.config());
  auto current = std::make_shared<at::Tensor>();  // what is being written
  std::vector<TensorSource> tensors;
  for (const Parameter& parameter : model.base_parameters()) {
    tensors.push_back({base.name_in_files(parameter.name), tensor_dtype(options.dtype), shape_of(parameter.tensor),
                       [&model, &options, parameter, current]() -> const void* {
                         if (options.before_tensor) options.before_tensor();
                         *current = at::Tensor();  // room for the next one
                         const at::Tensor weight = options.merge_lora && model.has_lora()
                                                       ? model.merged_weight(parameter.name)
                                                       : parameter.tensor;
                         *current = converted(parameter.name, weight, options.dtype);
                         return current->const_data_ptr();
                       }});
  }
  auto bytes = std::make_shared<std::vector<char>>();
  for (const WeightFiles::Tensor& tensor : base.carried()) {
    tensors.push_back({tensor.info->name, tensor.info->dtype, tensor.info->shape, [tensor, bytes]() -> const void* {
                         bytes->resize(tensor.info->bytes());
                         tensor.read(bytes->data());
                         return bytes->data();
                       }});
  }
  std::map<std::string, std::string> digests = write_weight_files(files, destination, tensors, options.max_shard_bytes);

  const std::string config = read_file(base_folder / "config.json", kMaxConfigBytes);
  // Also where the dtype stays: a config.json that says another one than its files have would make transformers
  // convert.
  digests["config.json"] = write_digested_file(files, destination / "config.json", with_dtype(config, options.dtype));
  const std::filesystem::path generation = base_folder / "generation_config.json";
  const std::string generation_text = has_folder_entry(base_folder, "generation_config.json")
                                          ? with_end_of_turn(read_file(generation, kMaxConfigBytes), base_folder)
                                          : new_generation_config(base_folder);
  digests["generation_config.json"] =
      write_digested_file(files, destination / "generation_config.json", generation_text);
  digests.merge(copy_tokenizer_files(files, base_folder, destination));
  files.sync_directory(destination);
  return digests;
}

}  // namespace gemma_sft
