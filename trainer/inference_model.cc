#include "trainer/inference_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "configs/error.h"
#include "model/adapter_config.h"
#include "model/hub_cache.h"
#include "model/model_folder.h"
#include "model/peft_folder.h"
#include "model/weights.h"
#include "trainer/device.h"
#include "trainer/model_source.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

void add_id(std::vector<int64_t>& ids, int64_t id) {
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

}  // namespace

std::string text_of(const InferenceModel& source, const std::vector<int64_t>& output_ids) {
  std::vector<int32_t> shown(output_ids.begin(), output_ids.end());
  const std::vector<int64_t>& stops = source.answer_stop_ids;
  if (!shown.empty() && std::find(stops.begin(), stops.end(), shown.back()) != stops.end()) shown.pop_back();
  return source.tokenizer->decode(shown);
}

void require_known_ids(const InferenceModel& source, const std::string& place, const std::vector<int64_t>& ids) {
  const int64_t rows = source.model.config().vocab_size;
  const auto largest = std::max_element(ids.begin(), ids.end());
  if (largest == ids.end() || *largest < rows) return;
  throw Error(ErrorKind::kModel,
              fmt::format("{}: the tokenizer gives the id {}, and the model's embedding has {} rows: "
                          "the tokenizer is another model's",
                          place, *largest, rows));
}

void require_fitting_prompt(const InferenceModel& source, const std::string& place, const std::vector<int64_t>& ids) {
  require_known_ids(source, place, ids);
  if (!is_beyond_maximum(source, ids.size(), 0)) return;
  throw Error(ErrorKind::kData, fmt::format("{}: the prompt has {} tokens, the model takes {}", place, ids.size(),
                                            source.model.config().max_position_embeddings));
}

bool is_beyond_maximum(const InferenceModel& source, size_t prompt_tokens, size_t answer_tokens) {
  return static_cast<int64_t>(prompt_tokens + answer_tokens) > source.model.config().max_position_embeddings;
}

fs::path find_adapter_base(const fs::path& adapter, const std::optional<std::string>& base) {
  const AdapterBase from = base ? AdapterBase{.name = *base} : read_adapter_base(adapter);
  if (from.name.empty()) {
    throw Error(
        ErrorKind::kModel,
        fmt::format("{}: adapter_config.json does not name the base model; give it with --base", adapter.string()));
  }
  std::error_code unknown;  // a name too long for the system is that of no folder
  if (!base && fs::exists(adapter / from.name / "config.json", unknown)) return adapter / from.name;
  return require_model_folder(from.name, from.revision);
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
    model.emplace(load_gemma(folder, options, throw_if_stopped));
    if (adapter) add_adapter(*model, *adapter);
  });
  model->set_training(false);
  std::vector<int64_t> stops = find_stop_ids(folder);
  if (stops.empty()) stops.push_back(tokenizer->eos_id());
  std::vector<int64_t> answer_stops = stops;
  add_id(answer_stops, tokenizer->end_of_turn_id());
  return {std::move(*model), tokenizer, std::move(stops), std::move(answer_stops)};
}

}  // namespace gemma_sft
