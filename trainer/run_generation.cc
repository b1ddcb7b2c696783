#include "trainer/run_generation.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/text/chat_template.h"
#include "trainer/generator.h"
#include "trainer/inference_model.h"
#include "trainer/input_rows.h"
#include "trainer/run/utf8_json.h"
#include "trainer/stop_signal.h"
#include "trainer/training_failure.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

struct PromptRow {
  std::string id;
  std::vector<int64_t> ids;
  std::string place;     // for messages
  bool is_chat = false;  // in the chat template
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

PromptRow parse_row(const InputRow& row, const Tokenizer& tokenizer, int64_t vocab_size,
                    const GenerationRequest& request) {
  const JsonValue object(row.line);
  if (object.kind() != JsonKind::kObject) refuse_row(row, object.byte(), "row", "a JSON object", object.description());
  PromptRow prompt{row.place, {}, row.place, false};
  if (const auto id = find_member(object, "id")) prompt.id = require_text(row, *id, "id");
  const auto text = find_member(object, "prompt");
  const auto ids = find_member(object, "input_ids");
  if (text.has_value() == ids.has_value()) {
    refuse_row(row, object.byte(), "row", "either prompt or input_ids", text ? "both" : "none of them");
  }
  if (text) {
    prompt.ids = encode_prompt(tokenizer, require_text(row, *text, "prompt"), request);
    prompt.is_chat = !request.raw;
    return prompt;
  }
  if (ids->kind() != JsonKind::kArray) refuse_row(row, ids->byte(), "input_ids", "an array", ids->description());
  ids->each_element([&](const JsonValue& element) {
    const auto id = element.kind() == JsonKind::kNumber ? element.integer() : std::nullopt;
    if (!id || *id < 0 || *id >= vocab_size) {
      refuse_row(row, element.byte(), fmt::format("input_ids[{}]", prompt.ids.size()),
                 fmt::format("an id of the vocabulary, 0 to {}", vocab_size - 1), element.description());
    }
    prompt.ids.push_back(*id);
    return true;
  });
  if (prompt.ids.empty()) refuse_row(row, ids->byte(), "input_ids", "at least one token id", ids->description());
  return prompt;
}

std::vector<PromptRow> read_rows(const fs::path& path, const InferenceModel& source, const GenerationRequest& request) {
  if (!fs::exists(path)) {
    throw Error(ErrorKind::kData,
                fmt::format("Input file not found: {} (rows of {{id, prompt}} or {{id, input_ids}})", path.string()));
  }
  std::vector<PromptRow> rows;
  each_input_row(path, [&](const InputRow& row) {
    rows.push_back(parse_row(row, *source.tokenizer, source.model.config().vocab_size, request));
    return true;
  });
  return rows;
}

}  // namespace

void run_generation(const GenerationRequest& request, const std::function<void(const GeneratedRow&)>& take) {
  if (request.prompt.has_value() == request.input.has_value()) {
    throw Error(ErrorKind::kUsage, "generate: one of --prompt and --input is required");
  }
  if (request.prompt && request.prompt->empty()) throw Error(ErrorKind::kUsage, "--prompt: expected text, found none");
  InferenceModel source = load_inference_model({.model = request.model,
                                                .revision = request.revision,
                                                .adapter = request.adapter,
                                                .base = request.base,
                                                .device = request.device,
                                                .precision = request.precision});
  std::vector<PromptRow> rows;
  if (request.prompt) {
    rows.push_back({"prompt", encode_prompt(*source.tokenizer, *request.prompt, request), "--prompt", !request.raw});
  } else {
    rows = read_rows(*request.input, source, request);
  }
  for (const PromptRow& row : rows) require_fitting_prompt(source, row.place, row.ids);
  uint64_t seed = request.sampling.seed;
  for (const PromptRow& row : rows) {
    GenerationLimits limits{.max_new_tokens = request.max_new_tokens};
    if (!request.ignore_eos) limits.stop_ids = row.is_chat ? source.answer_stop_ids : source.stop_ids;
    SamplingOptions sampling = request.sampling;
    sampling.seed = seed++;
    Sampler sampler(sampling);
    GeneratedRow generated{.id = row.id, .output_ids = {}, .text = {}};
    with_memory_errors_explained({.phase = "generation", .remedy = kAnswersRemedy}, [&] {
      generated.output_ids = generate_tokens(source.model, row.ids, limits, sampler);
    });
    if (stop_signal() != 0) return;
    generated.text = text_of(source, generated.output_ids);
    generated.beyond_maximum = is_beyond_maximum(source, row.ids.size(), generated.output_ids.size());
    take(generated);
  }
}

std::string to_json(const GeneratedRow& row) {
  const nlohmann::ordered_json document = {{"id", row.id}, {"output_ids", row.output_ids}, {"text", row.text}};
  // The id of a row without one holds the file's name, which may be any bytes.
  return utf8_json(document);
}

}  // namespace gemma_sft
