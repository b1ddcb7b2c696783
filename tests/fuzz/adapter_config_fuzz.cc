// adapter_config.json of a PEFT folder, beside an adapter_model.safetensors with one adapted layer.
#include <string>

#include "model/adapter_config.h"
#include "tests/fuzz/fuzz_input.h"

namespace gemma_sft {
namespace {

bool write_weights() {
  const std::string header = R"({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight":)"
                             R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  write_scratch("adapter/adapter_model.safetensors", file + header + std::string(4, '\0'));
  return true;
}

}  // namespace
}  // namespace gemma_sft

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gemma_sft;
  static const bool written = write_weights();
  const auto folder = write_scratch("adapter/adapter_config.json", text_of(data, size)).parent_path();
  AdapterBase base;
  if (!written || !accepts([&] { base = read_adapter_base(folder); })) return 0;
  LoraOptions options;
  if (!accepts([&] { options = load_adapter_config(folder); })) return 0;
  write_scratch("adapter/adapter_config.json", to_adapter_config_json(options, base, options.target_modules));
  LoraOptions again;
  if (!accepts([&] { again = load_adapter_config(folder); })) report_bug("what was accepted is refused when written");
  if (again.rank != options.rank || again.alpha != options.alpha || again.dropout != options.dropout ||
      again.rslora != options.rslora || again.target_modules != options.target_modules) {
    report_bug("an adapter's options do not survive being written");
  }
  return 0;
}
