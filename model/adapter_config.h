// adapter_config.json of a PEFT folder. No torch here.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "model/gemma_config.h"
#include "model/lora.h"

namespace gemma_sft {

// Options of a PEFT folder. Throws Error(kModel) with every problem: not LoRA, or anything that changes what the
// adapter computes and is not honoured (DoRA, modules_to_save, biases, patterns of ranks, ...). Where the layers are
// given by other means than a list of names (a regular expression, layers_to_transform, exclude_modules), the names
// come from the tensors of adapter_model.safetensors; a name in a list that means none of these is left out.
LoraOptions load_adapter_config(const std::filesystem::path& folder);

// Training that continues the adapter in `folder` must scale it and place it as its adapter_config.json says: another
// alpha would make its matrices mean something else. Throws Error(kUsage) with the settings to give when `asked` has
// another rank or scale, or means other layers of the model; Error(kModel) as load_adapter_config. Dropout is free.
void require_continuation(const LoraOptions& asked, const std::filesystem::path& folder, const GemmaConfig& config);

// lora.init_from, which is given: found as every path of a configuration file is, else as it stands.
std::filesystem::path find_initial_adapter(const LoraSection& lora, const std::filesystem::path& config_file);

// Which model an adapter belongs to: "base_model_name_or_path" and "revision".
struct AdapterBase {
  std::string name = {};                     // a folder or a hub id; empty: the adapter does not say
  std::optional<std::string> revision = {};  // of a hub id
};
AdapterBase read_adapter_base(const std::filesystem::path& folder);

// The text of an adapter_config.json that peft, vLLM and llama.cpp load: `lora_alpha` is an integer where it is
// integral.
std::string to_adapter_config_json(const LoraOptions& options, const AdapterBase& base,
                                   const std::vector<std::string>& target_modules);

}  // namespace gemma_sft
