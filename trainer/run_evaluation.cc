#include "trainer/run_evaluation.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/batches/packer.h"
#include "data/records/example_reader.h"
#include "data/text/chat_template.h"
#include "trainer/evaluator.h"
#include "trainer/generator.h"
#include "trainer/inference_model.h"
#include "trainer/input_rows.h"
#include "trainer/run/utf8_json.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

struct Question {
  std::string id;
  int64_t line = 0;
  std::vector<Turn> prompt;         // up to the last user turn
  std::vector<int64_t> prompt_ids;  // the same, rendered and encoded
  std::string expected;
  std::optional<Example> example;  // whole, for the loss; none where only the answer is known
};

// {"id", "prompt", "expected_answer"}: the rows of an evaluation set.
std::optional<Question> parse_evaluation_row(const InputRow& row) {
  const JsonValue object(row.line);
  if (object.kind() != JsonKind::kObject) return std::nullopt;
  const auto expected = find_member(object, "expected_answer");
  if (!expected) return std::nullopt;
  const auto prompt = find_member(object, "prompt");
  if (!prompt) refuse_row(row, object.byte(), "prompt", "a non-empty string", "no such field");
  const auto id = find_member(object, "id");
  return Question{.id = id ? require_text(row, *id, "id") : row.place,
                  .line = row.number,
                  .prompt = {{.role = Role::kUser, .text = require_text(row, *prompt, "prompt")}},
                  .prompt_ids = {},
                  .expected = require_text(row, *expected, "expected_answer"),
                  .example = std::nullopt};
}

Question question_of(Example example, int64_t number) {
  Question question{
      .id = example.id, .line = number, .prompt = example.turns, .prompt_ids = {}, .expected = {}, .example = example};
  question.expected = question.prompt.back().text;
  question.prompt.pop_back();
  return question;
}

std::vector<Question> read_questions(const EvaluationRequest& request) {
  if (request.format == DataFormat::kTokens) {
    throw Error(ErrorKind::kUsage,
                "eval: format tokens has no texts to compare; use training_example, tunix_sft or trace");
  }
  if (!fs::exists(request.input)) {
    throw Error(ErrorKind::kData, fmt::format("Evaluation file not found: {}", request.input.string()));
  }
  std::vector<Question> questions;
  each_input_row(request.input, [&](const InputRow& row) {
    if (request.max_samples && static_cast<int64_t>(questions.size()) >= *request.max_samples) return false;
    if (auto question = parse_evaluation_row(row)) {
      questions.push_back(std::move(*question));
      return true;
    }
    auto parsed = parse_example(row.line, request.input.string(), row.number, request.format);
    if (const auto* problem = std::get_if<RowProblem>(&parsed)) throw Error(ErrorKind::kData, problem->message);
    questions.push_back(question_of(std::get<Example>(std::move(parsed)), row.number));
    return true;
  });
  if (questions.empty()) throw Error(ErrorKind::kData, fmt::format("{}: has no row", request.input.string()));
  return questions;
}

EvaluationLoss loss_of_question(InferenceModel& source, const Question& question, ControlTokens mode,
                                const std::string& file) {
  const TokenizedExample tokens = tokenize_example(*source.tokenizer, *question.example, mode);
  require_known_ids(source, fmt::format("{}:{}", file, question.line),
                    {tokens.input_ids.begin(), tokens.input_ids.end()});
  const PackedBatch batch = pack({tokens}, {question.line}, file, {});
  return {.sum = loss_of(source.model, batch), .tokens = batch.target_tokens};
}

std::vector<int64_t> encode_prompt(const Tokenizer& tokenizer, const std::vector<Turn>& prompt, ControlTokens mode) {
  const std::vector<int32_t> ids = encode_segments(tokenizer, render_for_generation(prompt), mode).input_ids;
  return {ids.begin(), ids.end()};
}

}  // namespace

std::string extract_answer(const std::string& text) {
  constexpr std::string_view kMark = "Answer:";
  const size_t mark = text.rfind(kMark);
  const std::string_view rest = std::string_view(text).substr(mark == std::string::npos ? 0 : mark + kMark.size());
  return std::string(strip_like_python(rest));
}

EvaluationSummary run_evaluation(const EvaluationRequest& request,
                                 const std::function<void(const EvaluatedRow&)>& take) {
  std::vector<Question> questions = read_questions(request);
  InferenceModel source = load_inference_model({.model = request.model,
                                                .revision = request.revision,
                                                .adapter = request.adapter,
                                                .base = request.base,
                                                .device = request.device,
                                                .precision = request.precision,
                                                .memory_remedy = request.memory_remedy});
  const ControlTokens mode = request.parse_control_tokens ? ControlTokens::kParse : ControlTokens::kLiteral;
  for (Question& question : questions) {
    question.prompt_ids = encode_prompt(*source.tokenizer, question.prompt, mode);
    require_fitting_prompt(source, fmt::format("{}:{}", request.input.string(), question.line), question.prompt_ids);
  }
  const GenerationLimits limits{.max_new_tokens = request.max_new_tokens, .stop_ids = source.answer_stop_ids};
  EvaluationSummary summary;
  EvaluationLoss loss;
  SamplingOptions sampling = request.sampling;
  for (const Question& question : questions) {
    EvaluatedRow row{
        .id = question.id, .prompt = question.prompt.back().text, .expected = question.expected, .generated = {}};
    with_memory_errors_explained({.phase = "evaluation", .remedy = request.memory_remedy}, [&] {
      Sampler sampler(sampling);
      const std::vector<int64_t> answer = generate_tokens(source.model, question.prompt_ids, limits, sampler);
      row.generated = text_of(source, answer);
      row.beyond_maximum = is_beyond_maximum(source, question.prompt_ids.size(), answer.size());
      if (!question.example) return;
      const EvaluationLoss one = loss_of_question(source, question, mode, request.input.string());
      loss.sum += one.sum;
      loss.tokens += one.tokens;
    });
    if (stop_signal() != 0) break;
    ++sampling.seed;
    row.correct = extract_answer(row.generated) == extract_answer(row.expected);
    ++summary.rows;
    summary.correct += row.correct ? 1 : 0;
    summary.beyond_maximum += row.beyond_maximum ? 1 : 0;
    take(row);
  }
  if (summary.rows > 0) summary.exact_match = static_cast<double>(summary.correct) / static_cast<double>(summary.rows);
  summary.target_tokens = loss.tokens;
  if (loss.tokens > 0) summary.loss = loss.mean();
  return summary;
}

std::string to_json(const EvaluatedRow& row) {
  const nlohmann::ordered_json document = {{"id", row.id},
                                           {"prompt", row.prompt},
                                           {"expected", row.expected},
                                           {"generated", row.generated},
                                           {"correct", row.correct}};
  // As for a generated row: the id may hold a file's name, which may be any bytes.
  return utf8_json(document);
}

}  // namespace gemma_sft
