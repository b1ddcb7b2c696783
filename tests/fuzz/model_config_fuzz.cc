// A model's config.json.
#include <string>

#include "model/gemma_config.h"
#include "model/model_folder.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gemma_sft;
  const std::string text(text_of(data, size));
  GemmaConfig config;
  if (!accepts([&] { config = parse_gemma_config(text, "config.json"); })) return 0;
  if (config.parameter_count() <= 0) report_bug("a model without parameters");
  if (config.layer_kinds.size() != static_cast<size_t>(config.num_layers)) report_bug("layers without a kind");
  accepts([&] { parse_gemma_config(with_dtype(text, ModelDtype::kBf16), "config.json"); });
  if (config.image_text) return 0;  // written as the text-only model it is trained as
  const std::string written = to_config_json(config, "bfloat16");
  GemmaConfig again;
  if (!accepts([&] { again = parse_gemma_config(written, "written"); })) {
    report_bug("to_config_json gives what parse_gemma_config refuses:\n" + written);
  }
  if (to_config_json(again, "bfloat16") != written) report_bug("to_config_json does not read back:\n" + written);
  return 0;
}
