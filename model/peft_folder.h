// How PEFT lays out an adapter: the files of its folder and the names in them. No torch here.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace gemma_sft {

inline constexpr const char* kAdapterConfigFile = "adapter_config.json";
inline constexpr const char* kAdapterWeightsFile = "adapter_model.safetensors";

// A folder with adapter_config.json, which goes before a config.json, as in transformers; a path that cannot be one
// gives false.
bool is_adapter_folder(const std::filesystem::path& folder);

enum class LoraMatrix { kA, kB };  // A [rank, in], B [out, rank]

// "base_model.model.<module>.lora_A.weight"; the module as the file calls it (model/image_text_names.h).
struct LoraTensorName {
  std::string module;
  LoraMatrix matrix;
};
std::string to_string(const LoraTensorName& name);
std::optional<LoraTensorName> parse_lora_tensor_name(const std::string& name);

}  // namespace gemma_sft
