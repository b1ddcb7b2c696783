#include "data/batches/explain_row.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <variant>

#include "configs/error.h"
#include "configs/scalar.h"
#include "data/batches/packer.h"
#include "data/files/input_file.h"
#include "data/files/json_text.h"
#include "data/files/line_reader.h"
#include "data/records/example_reader.h"
#include "data/text/chat_template.h"

namespace gemma_sft {

namespace {

struct FoundRow {
  Example example;
  RowOffset offset;
};

FoundRow find_row(const std::string& file, int64_t row, DataFormat format) {
  ExampleReader reader(file, format);
  int64_t rows = 0;
  while (const std::unique_ptr<ExampleReader::Row> found = reader.next()) {
    if (++rows < row && !found->is_too_long) continue;
    if (const auto* problem = std::get_if<RowProblem>(&found->content)) throw Error(ErrorKind::kData, problem->message);
    return {std::get<Example>(std::move(found->content)), found->offset};
  }
  throw Error(ErrorKind::kData,
              fmt::format("{}: there is no row {}; the file has {} rows, the first is row 1", file, row, rows));
}

enum class Lines { kKeep, kEscape };

// Control characters would break the table, or be commands to the terminal.
std::string visible(std::string_view text, Lines lines) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte >= 0x20 && byte != 0x7f) || (lines == Lines::kKeep && (c == '\n' || c == '\t'))) {
      out += c;
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else {
      out += fmt::format("\\x{:02x}", byte);
    }
  }
  return out;
}

}  // namespace

RowExplanation explain_row(const std::string& file, int64_t row, std::shared_ptr<const Tokenizer> tokenizer,
                           const IndexOptions& options) {
  if (row < 1) throw Error(ErrorKind::kData, fmt::format("{}: there is no row {}; the first is row 1", file, row));
  const auto [example, offset] = find_row(file, row, options.format);
  const ControlTokens mode = options.parse_control_tokens ? ControlTokens::kParse : ControlTokens::kLiteral;
  TokenizedExample tokenized;
  try {
    tokenized = tokenize_example(*tokenizer, example, mode);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kData) throw;
    throw Error(ErrorKind::kData, fmt::format("{}:{}:1: row: {}", file, example.place.line, error.what()));
  }
  const int64_t vocab_size = options.vocab_size > 0 ? options.vocab_size : tokenizer->size();
  const auto unfit = find_unfit(example, tokenized, *tokenizer, vocab_size);
  if (unfit && unfit->element) {  // an id without a piece cannot be shown
    const std::string line =
        LineReader(InputFile(file), ExampleReader::kDefaultMaxLineBytes).at(offset.byte, offset.line).text;
    throw Error(ErrorKind::kData, fmt::format("{}:{}:{}: {}[{}]: {}", file, example.place.line,
                                              column_of_member(line, unfit->field, unfit->element), unfit->field,
                                              *unfit->element, unfit->what));
  }

  RowExplanation explanation;
  explanation.id = example.id;
  explanation.place = example.place;
  explanation.unread_fields = example.unread_fields;
  if (unfit) explanation.problem = fmt::format("{}: {}", unfit->field, unfit->what);
  explanation.spells_control_token = std::any_of(example.turns.begin(), example.turns.end(), [&](const Turn& turn) {
    return tokenizer->spells_control_token(turn.text);
  });
  const auto length = static_cast<int64_t>(tokenized.input_ids.size());
  if (length > options.max_seq_length && options.on_long == OnLong::kTruncate) {
    explanation.cut_tokens = length - options.max_seq_length;
    tokenized.input_ids.resize(static_cast<size_t>(options.max_seq_length));
    tokenized.loss_mask.resize(static_cast<size_t>(options.max_seq_length));
  }
  explanation.text = tokenizer->decode(tokenized.input_ids);

  const PackedBatch batch = pack({tokenized}, {example.place.line}, file, {});
  explanation.target_tokens = batch.target_tokens;
  for (size_t i = 0; i < batch.input_ids.size(); ++i) {
    const auto id = static_cast<int32_t>(batch.input_ids[i]);
    explanation.tokens.push_back(
        {batch.positions[i], id, tokenizer->piece(id), tokenized.loss_mask[i] != 0, batch.targets[i]});
  }
  return explanation;
}

std::string to_text(const RowExplanation& explanation) {
  std::string out =
      fmt::format("row {} ({}:{}): {} tokens, {} of them targets", visible(explanation.id, Lines::kEscape),
                  explanation.place.file, explanation.place.line, explanation.tokens.size(), explanation.target_tokens);
  if (explanation.cut_tokens > 0) out += fmt::format(", {} cut off", explanation.cut_tokens);
  if (explanation.spells_control_token) out += ", its contents spell a control token";
  out += "\n\n" + visible(explanation.text, Lines::kKeep);
  if (!explanation.text.ends_with('\n')) out += '\n';
  out += "\nposition       id  mask   target  piece\n";
  for (const ExplainedToken& token : explanation.tokens) {
    const std::string target = token.target < 0 ? "-" : fmt::format("{}", token.target);
    out += fmt::format("{:>8} {:>8}  {:>4} {:>8}  {}\n", token.position, token.id, token.trained ? 1 : 0, target,
                       visible(token.piece, Lines::kEscape));
  }
  return out;
}

std::string to_json(const RowExplanation& explanation) {
  std::string ids, mask, positions, targets, pieces;
  const auto add = [](std::string& list, const std::string& value) { list += (list.empty() ? "" : ", ") + value; };
  for (const ExplainedToken& token : explanation.tokens) {
    add(ids, std::to_string(token.id));
    add(mask, token.trained ? "1" : "0");
    add(positions, std::to_string(token.position));
    add(targets, std::to_string(token.target));
    add(pieces, json_quoted(token.piece));
  }
  return fmt::format(
      "{{\"id\": {}, \"file\": {}, \"line\": {}, \"text\": {}, \"pieces\": [{}], \"input_ids\": [{}], \"loss_mask\": "
      "[{}], "
      "\"positions\": [{}], \"targets\": [{}], \"target_tokens\": {}, \"cut_tokens\": {}, \"spells_control_token\": "
      "{}}}",
      json_quoted(explanation.id), in_quotes(explanation.place.file), explanation.place.line,
      json_quoted(explanation.text), pieces, ids, mask, positions, targets, explanation.target_tokens,
      explanation.cut_tokens, explanation.spells_control_token);
}

}  // namespace gemma_sft
