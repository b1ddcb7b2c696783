#include "trainer/run_generation.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/text/chat_template.h"
#include "trainer/generator.h"
#include "trainer/inference_model.h"
#include "trainer/input_rows.h"
#include "trainer/stop_signal.h"
#include "trainer/training_failure.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct PromptRow {
  std::string id;
  std::vector<int64_t> ids;
  std::string place;  // for messages
};

std::vector<int64_t> widened(const std::vector<int32_t>& ids) { return {ids.begin(), ids.end()}; }

std::vector<int64_t> encode_prompt(const Tokenizer& tokenizer, const std::string& prompt,
                                   const GenerationRequest& request) {
  if (request.raw) {
    std::vector<int64_t> ids = widened(tokenizer.encode_parsing_control_tokens(prompt));
    if (ids.empty() || ids.front() != tokenizer.bos_id()) ids.insert(ids.begin(), tokenizer.bos_id());
    return ids;
  }
  const ControlTokens mode = request.parse_control_tokens ? ControlTokens::kParse : ControlTokens::kLiteral;
  return widened(
      encode_segments(tokenizer, render_for_generation({{.role = Role::kUser, .text = prompt}}), mode).input_ids);
}

PromptRow parse_row(const std::string& line, const std::string& place, const Tokenizer& tokenizer, int64_t vocab_size,
                    const GenerationRequest& request) {
  const json row = json::parse(line);
  if (!row.is_object()) throw Error(ErrorKind::kData, fmt::format("{}: expected an object", place));
  PromptRow prompt{place, {}, place};
  if (const auto id = row.find("id"); id != row.end()) {
    if (!id->is_string()) throw Error(ErrorKind::kData, fmt::format("{}: id: expected a text", place));
    prompt.id = id->get<std::string>();
  }
  const auto text = row.find("prompt");
  const auto ids = row.find("input_ids");
  if ((text == row.end()) == (ids == row.end())) {
    throw Error(ErrorKind::kData, fmt::format("{}: expected one of prompt and input_ids", place));
  }
  if (text != row.end()) {
    if (!text->is_string() || text->get_ref<const std::string&>().empty()) {
      throw Error(ErrorKind::kData, fmt::format("{}: prompt: expected a text that is not empty", place));
    }
    prompt.ids = encode_prompt(tokenizer, text->get<std::string>(), request);
    return prompt;
  }
  if (!ids->is_array() || ids->empty()) {
    throw Error(ErrorKind::kData, fmt::format("{}: input_ids: expected a list of token ids that is not empty", place));
  }
  for (const json& id : *ids) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocab_size) {
      throw Error(ErrorKind::kData, fmt::format("{}: input_ids: expected ids from 0 to {}, found {}", place,
                                                vocab_size - 1, id.is_number() ? id.dump() : id.type_name()));
    }
    prompt.ids.push_back(id.get<int64_t>());
  }
  return prompt;
}

std::vector<PromptRow> read_rows(const fs::path& path, const InferenceModel& source, const GenerationRequest& request) {
  if (!fs::exists(path)) {
    throw Error(ErrorKind::kData,
                fmt::format("Input file not found: {} (rows of {{id, prompt}} or {{id, input_ids}})", path.string()));
  }
  std::vector<PromptRow> rows;
  each_input_row(path, [&](const InputRow& row) {
    rows.push_back(parse_row(row.line, row.place, *source.tokenizer, source.model.config().vocab_size, request));
    return true;
  });
  return rows;
}

}  // namespace

void run_generation(const GenerationRequest& request, const std::function<void(const GeneratedRow&)>& take) {
  if (request.prompt.has_value() == request.input.has_value()) {
    throw Error(ErrorKind::kUsage, "generate: one of --prompt and --input is required");
  }
  InferenceModel source = load_inference_model({.model = request.model,
                                                .revision = request.revision,
                                                .adapter = request.adapter,
                                                .base = request.base,
                                                .device = request.device,
                                                .precision = request.precision});
  std::vector<PromptRow> rows;
  if (request.prompt) {
    rows.push_back({"prompt", encode_prompt(*source.tokenizer, *request.prompt, request), "--prompt"});
  } else {
    rows = read_rows(*request.input, source, request);
  }
  const int64_t longest = source.model.config().max_position_embeddings;
  for (const PromptRow& row : rows) {
    if (static_cast<int64_t>(row.ids.size()) > longest) {
      throw Error(ErrorKind::kData,
                  fmt::format("{}: the prompt has {} tokens, the model takes {}", row.place, row.ids.size(), longest));
    }
  }
  const GenerationLimits limits{.max_new_tokens = request.max_new_tokens,
                                .stop_ids = request.ignore_eos ? std::vector<int64_t>{} : source.stop_ids};
  uint64_t seed = request.sampling.seed;
  for (const PromptRow& row : rows) {
    SamplingOptions sampling = request.sampling;
    sampling.seed = seed++;
    Sampler sampler(sampling);
    GeneratedRow generated{row.id, {}, {}};
    with_memory_errors_explained(
        {"generation"}, [&] { generated.output_ids = generate_tokens(source.model, row.ids, limits, sampler); });
    if (stop_signal() != 0) return;
    generated.text = text_of(source, generated.output_ids);
    take(generated);
  }
}

std::string to_json(const GeneratedRow& row) {
  const nlohmann::ordered_json document = {{"id", row.id}, {"output_ids", row.output_ids}, {"text", row.text}};
  return document.dump();
}

}  // namespace gemma_sft
