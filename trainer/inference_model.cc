#include "trainer/inference_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "model/adapter_config.h"
#include "model/hub_cache.h"
#include "model/weights.h"
#include "trainer/device.h"
#include "trainer/model_source.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::vector<int64_t> find_stop_ids(const fs::path& folder, const Tokenizer& tokenizer) {
  const fs::path path = folder / "generation_config.json";
  std::vector<int64_t> ids;
  if (fs::exists(path)) {
    try {
      const json eos = json::parse(read_file(path, 1 << 20)).value("eos_token_id", json(nullptr));
      if (eos.is_array()) ids = eos.get<std::vector<int64_t>>();
      if (eos.is_number_integer()) ids = {eos.get<int64_t>()};
    } catch (const json::exception& error) {
      throw Error(ErrorKind::kModel, fmt::format("{}: eos_token_id: {}", path.string(), error.what()));
    }
  }
  if (ids.empty()) ids = {tokenizer.eos_id()};
  ids.push_back(tokenizer.end_of_turn_id());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace

std::string text_of(const InferenceModel& source, const std::vector<int64_t>& output_ids) {
  std::vector<int32_t> shown(output_ids.begin(), output_ids.end());
  if (!shown.empty() && std::binary_search(source.stop_ids.begin(), source.stop_ids.end(), shown.back())) {
    shown.pop_back();
  }
  return source.tokenizer->decode(shown);
}

void require_fitting_prompt(const InferenceModel& source, const std::string& place, size_t tokens) {
  if (!is_beyond_maximum(source, tokens, 0)) return;
  throw Error(ErrorKind::kData, fmt::format("{}: the prompt has {} tokens, the model takes {}", place, tokens,
                                            source.model.config().max_position_embeddings));
}

bool is_beyond_maximum(const InferenceModel& source, size_t prompt_tokens, size_t answer_tokens) {
  return static_cast<int64_t>(prompt_tokens + answer_tokens) > source.model.config().max_position_embeddings;
}

bool is_adapter_folder(const fs::path& folder) {
  return fs::exists(folder / "adapter_config.json") && !fs::exists(folder / "config.json");
}

fs::path find_adapter_base(const fs::path& adapter, const std::optional<std::string>& base) {
  const std::string name = base ? *base : adapter_base_name(adapter);
  if (name.empty()) {
    throw Error(
        ErrorKind::kModel,
        fmt::format("{}: adapter_config.json does not name the base model; give it with --base", adapter.string()));
  }
  if (!base && fs::exists(adapter / name / "config.json")) return adapter / name;
  return require_model_folder(name, std::nullopt);
}

InferenceModel load_inference_model(const InferenceModelSource& source) {
  std::optional<fs::path> adapter;
  if (source.adapter) adapter = *source.adapter;
  if (is_adapter_folder(source.model)) {
    if (adapter) {
      throw Error(
          ErrorKind::kUsage,
          fmt::format("--model {}: is an adapter itself; with --adapter it must be a whole model", source.model));
    }
    adapter = source.model;
  }
  if (adapter && !is_adapter_folder(*adapter)) {
    throw Error(ErrorKind::kModel,
                fmt::format("{}: is no PEFT folder: adapter_config.json not found", adapter->string()));
  }
  const fs::path folder = is_adapter_folder(source.model) ? find_adapter_base(source.model, source.base)
                                                          : require_model_folder(source.model, source.revision);
  const c10::Device device = choose_device(source.device);
  GemmaOptions options = model_options(choose_precision(source.precision, device), device);
  options.storage_dtype = options.compute_dtype;  // nothing is trained: no masters
  const std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::load(folder);
  std::optional<Gemma> model;
  with_memory_errors_explained({.phase = "loading the model", .remedy = source.memory_remedy}, [&] {
    const GemmaConfig shape = load_gemma_config(folder);
    const WeightFiles fit(folder, shape);  // or are refused before room is made for the model
    model.emplace(shape, options);
    load_weights(*model, folder, throw_if_stopped);
    if (adapter) {
      model->add_lora(load_adapter_config(*adapter), /*seed=*/0);
      load_adapter(*model, *adapter);
    }
  });
  model->set_training(false);
  return {std::move(*model), tokenizer, find_stop_ids(folder, *tokenizer)};
}

}  // namespace gemma_sft
