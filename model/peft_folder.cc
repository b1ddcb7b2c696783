#include "model/peft_folder.h"

#include <string_view>
#include <system_error>

namespace gemma_sft {
namespace {

constexpr std::string_view kPrefix = "base_model.model.", kA = ".lora_A.weight", kB = ".lora_B.weight";

}  // namespace

bool is_adapter_folder(const std::filesystem::path& folder) {
  std::error_code unknown;  // a name too long for the system is that of no folder
  return std::filesystem::exists(folder / kAdapterConfigFile, unknown);
}

std::string to_string(const LoraTensorName& name) {
  return std::string(kPrefix).append(name.module).append(name.matrix == LoraMatrix::kA ? kA : kB);
}

std::optional<LoraTensorName> parse_lora_tensor_name(const std::string& name) {
  static_assert(kA.size() == kB.size());
  if (name.size() <= kPrefix.size() + kA.size() || !name.starts_with(kPrefix)) return std::nullopt;
  const bool is_a = name.ends_with(kA);
  if (!is_a && !name.ends_with(kB)) return std::nullopt;
  return LoraTensorName{name.substr(kPrefix.size(), name.size() - kPrefix.size() - kA.size()),
                        is_a ? LoraMatrix::kA : LoraMatrix::kB};
}

}  // namespace gemma_sft
