#include "data/traces/trace_export.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <variant>
#include <vector>

#include "configs/error.h"
#include "data/records/example_reader.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::ordered_json;

// The reader of rows knows what a trace must have; its problem begins with a place, which here is the trace.
void require_trace(const StoredTrace& trace) {
  const auto read = parse_example(trace.payload, "payload", 1, DataFormat::kTrace);
  if (const RowProblem* problem = std::get_if<RowProblem>(&read)) {
    const std::string place = fmt::format("payload:1:{}: ", problem->column);
    const bool has_place = problem->message.starts_with(place);
    throw Error(ErrorKind::kData, fmt::format("trace {}: {}", trace.id,
                                              has_place ? problem->message.substr(place.size()) : problem->message));
  }
}

void add_meta(Json& metadata, const Json& payload) {
  const auto meta = payload.find("meta");
  if (meta == payload.end() || !meta->is_object()) return;
  for (const auto& [name, value] : meta->items()) metadata[name] = value;
}

}  // namespace

std::string export_trace(const StoredTrace& trace, DataFormat format) {
  require_trace(trace);
  const Json payload = Json::parse(trace.payload);
  const std::string prompt = payload.at("prompt");
  const std::string final_answer = payload.at("final_answer");
  std::vector<std::string> steps;
  if (const auto list = payload.find("steps"); list != payload.end() && list->is_array()) {
    for (const Json& step : *list) steps.push_back(step.at("content"));
  }

  Json row = {{"id", trace.id}};
  Json metadata = Json::object();
  if (format == DataFormat::kTrainingExample) metadata["source_trace_id"] = trace.id;
  metadata["created_at"] = trace.created_at;
  metadata["trace_version"] = trace.trace_version;
  switch (format) {
    case DataFormat::kTrace:
      row["prompts"] = prompt;
      row["trace_steps"] = steps;
      row["final_answer"] = final_answer;
      break;
    case DataFormat::kTunixSft: {
      const std::string response = render_trace(prompt, steps, final_answer).back().text;
      metadata["format"] = "tunix_sft";
      row["prompts"] =
          fmt::format("<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n{}<end_of_turn>", prompt, response);
      row["final_answer"] = final_answer;
      break;
    }
    case DataFormat::kTrainingExample: {
      const std::vector<Turn> turns = render_trace(prompt, steps, final_answer);
      row["prompt"] = turns.front().text;
      row["response"] = turns.back().text;
      break;
    }
    case DataFormat::kTokens:
      throw Error(
          ErrorKind::kData,
          "traces of a database become rows of training_example, tunix_sft or trace; for ready-made tokens export "
          "them and run gemma-sft tokenize");
  }
  add_meta(metadata, payload);
  row["metadata"] = std::move(metadata);
  return row.dump(-1, ' ', /*ensure_ascii=*/true);
}

}  // namespace gemma_sft
