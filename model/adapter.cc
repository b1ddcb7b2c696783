// PEFT folders in and out.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include <fmt/format.h>

#include "configs/error.h"
#include "data/files/folder_entry.h"
#include "data/files/pickle.h"
#include "data/files/safetensors.h"
#include "model/finite.h"
#include "model/image_text_names.h"
#include "model/model_folder.h"
#include "model/peft_folder.h"
#include "model/weights.h"

namespace gemma_sft {
namespace {

std::string leaf_of(const std::string& path) { return path.substr(path.rfind('.') + 1); }

// Of one of our parameters of an adapter.
LoraTensorName name_of(const Parameter& parameter) {
  const std::optional<LoraTensorName> name = parse_lora_tensor_name(parameter.name);
  if (!name) throw Error(ErrorKind::kInternal, parameter.name + ": is not named as PEFT does");
  return *name;
}

std::string name_in_file(const Gemma& model, const Parameter& parameter) {
  LoraTensorName name = name_of(parameter);
  if (model.config().image_text) name.module = image_text_name(name.module);
  return to_string(name);
}

// What target_modules must say so that peft adapts exactly the same layers: a layer's short name where all layers of
// that name are adapted, else full paths. Image-text models have layers of the same short names in their vision tower,
// so there only full paths will do.
std::vector<std::string> target_modules(const Gemma& model) {
  std::set<std::string> adapted, partly;
  for (const Parameter& parameter : model.lora_parameters()) adapted.insert(name_of(parameter).module);
  for (const Parameter& parameter : model.base_parameters()) {
    const std::string path = parameter.name.substr(0, parameter.name.rfind('.'));
    if (parameter.tensor.dim() == 2 && !adapted.contains(path)) partly.insert(leaf_of(path));
  }
  std::set<std::string> targets;
  for (const std::string& path : adapted) {
    if (model.config().image_text) {
      targets.insert(image_text_name(path));
    } else {
      targets.insert(partly.contains(leaf_of(path)) ? path : leaf_of(path));
    }
  }
  return {targets.begin(), targets.end()};
}

at::ScalarType scalar_type(const TensorInfo& info, const std::filesystem::path& file) {
  switch (info.dtype) {
    case TensorDtype::kF32: return at::kFloat;
    case TensorDtype::kBF16: return at::kBFloat16;
    case TensorDtype::kF16: return at::kHalf;
    default:
      throw Error(ErrorKind::kModel, fmt::format("{}: {} has dtype {}; expected F32, BF16 or F16", file.string(),
                                                 info.name, safetensors_name(info.dtype)));
  }
}

void require_adapter_weights(const std::filesystem::path& folder) {
  if (has_folder_entry(folder, kAdapterWeightsFile)) return;
  const std::string pickle = recognise_pickle_file(folder / "adapter_model.bin");
  throw Error(ErrorKind::kModel, fmt::format("{}: not found; {}", (folder / kAdapterWeightsFile).string(),
                                             pickle.empty() ? "expected an adapter folder as PEFT writes it"
                                                            : "of adapter_model.bin: " + pickle));
}

}  // namespace

std::map<std::string, std::string> export_adapter(const Gemma& model, const AdapterBase& base,
                                                  const std::filesystem::path& destination, FileSystem& files) {
  at::NoGradGuard no_grad;
  auto current = std::make_shared<at::Tensor>();
  std::vector<TensorSource> tensors;
  for (const Parameter& parameter : model.lora_parameters()) {
    tensors.push_back({name_in_file(model, parameter), TensorDtype::kF32, parameter.tensor.sizes().vec(),
                       [parameter, current]() -> const void* {
                         *current = parameter.tensor.detach().to(at::kCPU).to(at::kFloat).contiguous();
                         require_finite(parameter.name, *current);
                         return current->const_data_ptr();
                       }});
  }
  std::map<std::string, std::string> digests;
  digests[kAdapterWeightsFile] = write_safetensors(files, destination / kAdapterWeightsFile, tensors).sha256;
  digests[kAdapterConfigFile] =
      write_digested_file(files, destination / kAdapterConfigFile,
                          to_adapter_config_json(model.lora_options(), base, target_modules(model)));
  files.sync_directory(destination);
  return digests;
}

void load_adapter(Gemma& model, const std::filesystem::path& folder) {
  at::NoGradGuard no_grad;
  require_adapter_weights(folder);
  const std::filesystem::path path = folder / kAdapterWeightsFile;
  const SafetensorsFile file(path);
  std::map<std::string, const TensorInfo*> found;  // by our names
  for (const TensorInfo& info : file.tensors()) {
    std::string name = info.name;
    if (const std::optional<LoraTensorName> parts = parse_lora_tensor_name(name)) {
      name = to_string({text_name(parts->module), parts->matrix});
    }
    found[name] = &info;
  }
  std::string problems;
  for (const Parameter& parameter : model.lora_parameters()) {
    const auto entry = found.find(parameter.name);
    if (entry == found.end()) {
      problems += "\n  missing: " + parameter.name;
      continue;
    }
    const TensorInfo& info = *entry->second;
    found.erase(entry);
    if (info.shape != parameter.tensor.sizes().vec()) {
      problems += fmt::format("\n  {}: [{}], expected [{}]", info.name, fmt::join(info.shape, ", "),
                              fmt::join(parameter.tensor.sizes().vec(), ", "));
      continue;
    }
    const at::Tensor loaded = at::empty(parameter.tensor.sizes(), at::TensorOptions().dtype(scalar_type(info, path)));
    file.read(info, loaded.data_ptr());
    parameter.tensor.detach().copy_(loaded);
  }
  for (const auto& [name, info] : found) problems += "\n  not known: " + info->name;
  if (!problems.empty()) {
    throw Error(ErrorKind::kModel,
                path.string() + ": the adapter does not fit the model and its LoRA layers:" + problems);
  }
}

void add_adapter(Gemma& model, const std::filesystem::path& folder) {
  require_adapter_weights(folder);  // before room is made for them
  const LoraOptions options = load_adapter_config(folder);
  try {
    model.add_lora(options, /*seed=*/0);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUsage) throw;
    throw Error(ErrorKind::kModel, fmt::format("{}: {}", (folder / kAdapterConfigFile).string(), error.what()));
  }
  load_adapter(model, folder);
}

}  // namespace gemma_sft
