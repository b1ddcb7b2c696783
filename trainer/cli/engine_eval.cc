#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "trainer/cli/engine_commands.h"
#include "trainer/cli/row_writer.h"
#include "trainer/input_rows.h"
#include "trainer/run/utf8_json.h"
#include "trainer/run_evaluation.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) { return utf8_json(json) + "\n"; }

// "category" of each row that has an answer to give, in the order of the file; null where there is none. What is wrong
// with a row is the evaluation's to say.
std::vector<Json> read_categories(const std::string& file) {
  std::vector<Json> categories;
  each_input_row(file, [&](const InputRow& input) {
    const Json row = Json::parse(input.line, nullptr, /*allow_exceptions=*/false);
    categories.push_back(row.is_object() && row.contains("category") ? row["category"] : Json(nullptr));
    return true;
  });
  return categories;
}

// The answer as a trace: what came before the last "Answer:" is the reasoning.
Json trace_of(const EvaluatedRow& row, const std::string& model, const Json& category) {
  const size_t answer = row.generated.rfind("Answer:");
  const bool reasons = answer != std::string::npos && answer > 0;
  std::string reasoning = reasons ? row.generated.substr(0, answer) : row.generated;
  while (!reasoning.empty() && (reasoning.back() == '\n' || reasoning.back() == ' ')) reasoning.pop_back();
  return {{"trace_version", "1.0"},
          {"prompt", row.prompt},
          {"final_answer", row.generated},
          {"steps", Json::array({{{"i", 0}, {"type", "reasoning"}, {"content", reasoning}}})},
          {"meta", {{"source", "evaluation"}, {"eval_id", row.id}, {"model", model}, {"category", category}}}};
}

}  // namespace

int run_eval_command(const EvalArguments& arguments, const Output& output) {
  EvaluationRequest request;
  request.model = arguments.model;
  request.revision = arguments.revision;
  request.adapter = arguments.adapter;
  request.base = arguments.base;
  request.input = arguments.input;
  request.format = arguments.format;
  request.parse_control_tokens = arguments.parse_control_tokens;
  request.max_samples = arguments.max_samples;
  request.max_new_tokens = arguments.sampling.max_new_tokens;
  request.sampling = {.temperature = arguments.sampling.temperature,
                      .top_k = arguments.sampling.top_k,
                      .top_p = arguments.sampling.top_p,
                      .seed = arguments.sampling.seed};
  request.device = arguments.device;
  request.precision = arguments.precision;

  std::optional<RowWriter> rows;
  if (arguments.output) rows.emplace(arguments.output, output, real_file_system());
  int64_t count = 0;
  const EvaluationSummary summary = run_evaluation(request, [&](const EvaluatedRow& row) {
    ++count;
    if (rows) rows->write(to_json(row) + "\n");
  });
  if (stop_signal() != 0) {
    if (rows) rows->finish_part();
    return report_stop(output, fmt::format("eval after {} rows", count));
  }
  if (rows) rows->finish();
  warn_of_long_answers(output, summary.beyond_maximum, summary.rows, "lower --max-new-tokens");
  if (output.json()) {
    output.print(dump({{"model", arguments.model},
                       {"input", arguments.input},
                       {"rows", summary.rows},
                       {"correct", summary.correct},
                       {"exact_match", summary.exact_match},
                       {"loss", summary.loss ? Json(*summary.loss) : Json(nullptr)},
                       {"target_tokens", summary.target_tokens}}));
    return 0;
  }
  output.status(
      fmt::format("Exact match: {} of {} ({:.1f} %)", summary.correct, summary.rows, 100 * summary.exact_match));
  if (summary.loss)
    output.status(fmt::format("Loss: {:.4f} over {} target tokens", *summary.loss, summary.target_tokens));
  if (arguments.output) output.status("Answers: " + *arguments.output);
  return 0;
}

int run_eval_generate_command(const EvalGenerateArguments& arguments, const Output& output) {
  EvaluationRequest request;
  request.model = *arguments.model;
  request.input = *arguments.eval_set;
  request.max_samples = arguments.max_examples;
  request.sampling.seed = arguments.seed;
  request.device = arguments.device;
  request.memory_remedy = "Use a device with more memory (--device), or gemma-sft eval with --precision bf16.";

  const std::vector<Json> categories = read_categories(*arguments.eval_set);
  RowWriter rows(arguments.output, output, real_file_system());
  size_t count = 0;
  const EvaluationSummary summary = run_evaluation(request, [&](const EvaluatedRow& row) {
    rows.write(dump(trace_of(row, *arguments.model, count < categories.size() ? categories[count] : Json(nullptr))));
    ++count;
  });
  if (stop_signal() != 0) {
    rows.finish_part();
    return report_stop(output, fmt::format("eval_generate after {} rows", count));
  }
  rows.finish();
  warn_of_long_answers(output, summary.beyond_maximum, summary.rows, "shorten the prompts");
  if (output.json()) {
    output.print(dump({{"output", *arguments.output}, {"rows", summary.rows}, {"exact_match", summary.exact_match}}));
    return 0;
  }
  output.status(
      fmt::format("Answers: {} of {} exactly right, written to {}", summary.correct, summary.rows, *arguments.output));
  return 0;
}

}  // namespace gemma_sft
