#include "data/text/tokenize_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <iterator>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "configs/error.h"
#include "data/files/json_text.h"
#include "data/files/line_reader.h"
#include "data/records/example_reader.h"
#include "data/text/chat_template.h"

namespace gemma_sft {

namespace {

// The fields of a row that tell what it is.
struct RowShape {
  bool is_object = false;
  std::optional<JsonValue> id;
  std::optional<JsonValue> text;
  bool prompt = false, response = false, messages = false, prompts = false, steps = false, trace_steps = false,
       input_ids = false;
};

RowShape shape_of(const std::string& line) {
  RowShape shape;
  if (find_json_problem(line)) return shape;  // the reader of training examples says what is wrong
  const JsonValue row(line);
  if (row.kind() != JsonKind::kObject) return shape;
  shape.is_object = true;
  row.each_member([&](const JsonMember& member) {
    if (member.name == "id") shape.id = member.value;
    if (member.name == "text") shape.text = member.value;
    const std::array<std::pair<const char*, bool*>, 7> fields = {{{"prompt", &shape.prompt},
                                                                  {"response", &shape.response},
                                                                  {"messages", &shape.messages},
                                                                  {"prompts", &shape.prompts},
                                                                  {"steps", &shape.steps},
                                                                  {"trace_steps", &shape.trace_steps},
                                                                  {"input_ids", &shape.input_ids}}};
    for (const auto& [name, there] : fields) *there |= member.name == name;
    return true;
  });
  return shape;
}

DataFormat format_of(const RowShape& shape) {
  if (shape.prompt && shape.response) return DataFormat::kTrainingExample;
  if (shape.messages) return DataFormat::kTrainingExample;
  if (shape.steps || shape.trace_steps) return DataFormat::kTrace;
  if (shape.prompts) return DataFormat::kTunixSft;
  if (shape.input_ids) return DataFormat::kTokens;
  return DataFormat::kTrainingExample;
}

struct TokenizedRow {
  TokenizedExample tokens;
  bool spells_control_token = false;
};

class FileTokenizer {
 public:
  FileTokenizer(const std::string& input, const Tokenizer& tokenizer, const TokenizeOptions& options)
      : input_(input),
        tokenizer_(tokenizer),
        options_(options),
        mode_(options.parse_control_tokens ? ControlTokens::kParse : ControlTokens::kLiteral) {}

  // The row's tokens. `line` is whole and not blank.
  TokenizedRow tokenize(const std::string& line, int64_t number) const {
    const RowShape shape = shape_of(line);
    if (shape.text && !shape.prompt && !shape.messages && !shape.prompts && !shape.input_ids) {
      return tokenize_text(number, shape);
    }
    const auto parsed = parse_example(line, input_, number, format_of(shape));
    if (const auto* problem = std::get_if<RowProblem>(&parsed)) throw Error(ErrorKind::kData, problem->message);
    const auto& example = std::get<Example>(parsed);
    const bool spells_control_token = std::any_of(example.turns.begin(), example.turns.end(), [&](const Turn& turn) {
      return tokenizer_.spells_control_token(turn.text);
    });
    return {placed(number, [&] { return tokenize_example(tokenizer_, example, mode_); }), spells_control_token};
  }

 private:
  // What the tokenizer says of a row's text does not know the row.
  template <typename Tokenize>
  std::invoke_result_t<Tokenize> placed(int64_t number, const Tokenize& tokenize) const {
    try {
      return tokenize();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kData) throw;
      throw Error(ErrorKind::kData, fmt::format("{}:{}:1: row: {}", input_, number, error.what()));
    }
  }

  [[noreturn]] void fail(int64_t number, const JsonValue& value, const char* field, const char* expected) const {
    throw Error(ErrorKind::kData, fmt::format("{}:{}:{}: {}: expected {}, found {}", input_, number, value.byte() + 1,
                                              field, expected, value.description()));
  }

  TokenizedRow tokenize_text(int64_t number, const RowShape& shape) const {
    if (shape.text->kind() != JsonKind::kString) fail(number, *shape.text, "text", "a string");
    if (shape.id && (shape.id->kind() != JsonKind::kString || shape.id->string().empty())) {
      fail(number, *shape.id, "id", "a non-empty string");
    }
    TokenizedExample tokenized;
    tokenized.id = shape.id ? shape.id->string() : fmt::format("{}:{}", input_, number);
    const std::string text = shape.text->string();
    if (options_.add_bos) tokenized.input_ids.push_back(tokenizer_.bos_id());
    const std::vector<int32_t> ids = placed(number, [&] {
      return options_.parse_control_tokens ? tokenizer_.encode_parsing_control_tokens(text)
                                           : tokenizer_.encode_literal(text);
    });
    tokenized.input_ids.insert(tokenized.input_ids.end(), ids.begin(), ids.end());
    tokenized.loss_mask.assign(tokenized.input_ids.size(), 0);
    return {std::move(tokenized), tokenizer_.spells_control_token(text)};
  }

  const std::string& input_;
  const Tokenizer& tokenizer_;
  const TokenizeOptions& options_;
  const ControlTokens mode_;
};

}  // namespace

std::string token_row_line(const TokenizedExample& tokenized) {
  fmt::memory_buffer out;
  fmt::format_to(std::back_inserter(out), "{{\"id\": {}, \"input_ids\": [{}], \"loss_mask\": [{}]}}\n",
                 json_quoted(tokenized.id), fmt::join(tokenized.input_ids, ", "), fmt::join(tokenized.loss_mask, ", "));
  return fmt::to_string(out);
}

TokenizeCounts tokenize_file(const std::string& input, const Tokenizer& tokenizer, const TokenizeOptions& options,
                             const std::function<void(std::string_view)>& write) {
  const FileTokenizer file_tokenizer(input, tokenizer, options);
  std::error_code ignored;
  if (!std::filesystem::exists(input, ignored)) {
    throw Error(ErrorKind::kData, fmt::format("Input file not found: {}; check --input", input));
  }
  LineReader lines(InputFile(input), ExampleReader::kDefaultMaxLineBytes);
  TokenizeCounts counts;
  while (const std::optional<Line> line = lines.next()) {
    if (options.stop_requested && options.stop_requested()) return counts;
    if (line->too_long) {
      throw Error(ErrorKind::kData, fmt::format("{}:{}:1: row: expected at most {} bytes in a line, found more", input,
                                                line->number, ExampleReader::kDefaultMaxLineBytes));
    }
    if (line->text.find_first_not_of(" \t\r\v\f") == std::string::npos) continue;
    const auto [tokenized, spells_control_token] = file_tokenizer.tokenize(line->text, line->number);
    write(token_row_line(tokenized));
    ++counts.rows;
    counts.tokens += static_cast<int64_t>(tokenized.input_ids.size());
    counts.target_tokens += std::count(tokenized.loss_mask.begin(), tokenized.loss_mask.end(), uint8_t{1});
    counts.control_text_rows += spells_control_token ? 1 : 0;
  }
  return counts;
}

}  // namespace gemma_sft
