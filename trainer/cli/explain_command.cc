#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "configs/choice_names.h"
#include "configs/configured_path.h"
#include "configs/error.h"
#include "configs/load_config.h"
#include "data/batches/packer.h"
#include "data/files/json_text.h"
#include "data/records/example_reader.h"
#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"
#include "model/gemma_config.h"
#include "model/hub_cache.h"
#include "trainer/cli/front_end_commands.h"
#include "trainer/cli/train_request.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDefaultMaxSequence = 2048;

struct ExplainedRow {
  Example example;
  TokenizedExample tokens;  // after truncation
  PackedBatch batch;
  int64_t full_length = 0;
  int64_t max_seq_length = 0;
};

Example require_row(const fs::path& file, DataFormat format, int64_t line) {
  ExampleReader reader(file.string(), format);
  int64_t last = 0;
  while (const auto row = reader.next()) {
    last = row->offset.line;
    if (last < line) continue;
    if (last > line) break;
    if (const auto* problem = std::get_if<RowProblem>(&row->content)) throw Error(ErrorKind::kData, problem->message);
    return std::get<Example>(row->content);
  }
  throw Error(ErrorKind::kData,
              last < line ? fmt::format("{}: row {} not found: the last row is in line {}", file.string(), line, last)
                          : fmt::format("{}:{}: there is no row in this line, it is blank", file.string(), line));
}

ExplainedRow explain_row(const LoadedConfig& loaded, int64_t line) {
  const RunConfig& config = loaded.config;
  const DatasetPlaces places = find_dataset(loaded);
  if (!places.rows.found)
    throw Error(ErrorKind::kData, "Data file not found: the manifest has no rows beside it; give dataset.data_path");
  const auto local = find_configured_path(config.model.base_model, loaded.file);
  const fs::path folder =
      require_model_folder(local ? local->string() : config.model.base_model, config.model.revision);
  const GemmaConfig model = load_gemma_config(folder);
  const auto tokenizer = Tokenizer::load(folder);

  ExplainedRow row;
  row.example = require_row(*places.rows.found, config.dataset.format, line);
  row.tokens = tokenize_example(*tokenizer, row.example,
                                config.dataset.parse_control_tokens ? ControlTokens::kParse : ControlTokens::kLiteral);
  row.full_length = static_cast<int64_t>(row.tokens.input_ids.size());
  row.max_seq_length =
      config.model.max_seq_length.value_or(std::min(model.max_position_embeddings, kDefaultMaxSequence));
  if (row.full_length > row.max_seq_length && config.dataset.on_long == OnLong::kTruncate) {
    row.tokens.input_ids.resize(static_cast<size_t>(row.max_seq_length));
    row.tokens.loss_mask.resize(static_cast<size_t>(row.max_seq_length));
  }
  row.batch = pack({row.tokens}, {line}, places.rows.found->string(),
                   {.packing = config.training.packing, .pad_id = tokenizer->pad_id()});
  return row;
}

std::string length_note(const ExplainedRow& row, OnLong on_long) {
  if (row.full_length <= row.max_seq_length) return "";
  const std::string length =
      fmt::format("the row has {} tokens, model.max_seq_length is {}: ", row.full_length, row.max_seq_length);
  switch (on_long) {
    case OnLong::kTruncate: return length + "dataset.on_long: truncate cuts it to what is shown";
    case OnLong::kSkip: return length + "dataset.on_long: skip leaves it out of training";
    case OnLong::kFail: return length + "dataset.on_long: fail makes it a bad record";
  }
  return length;
}

}  // namespace

int run_explain(const ExplainArguments& arguments, const Output& output) {
  LoadOptions options;
  options.assignments = arguments.assignments;
  const LoadedConfig loaded = load_config(arguments.config, options);
  const ExplainedRow row = explain_row(loaded, arguments.row);
  const auto local = find_configured_path(loaded.config.model.base_model, loaded.file);
  const auto tokenizer = Tokenizer::load(
      require_model_folder(local ? local->string() : loaded.config.model.base_model, loaded.config.model.revision));
  const std::string text = tokenizer->decode(row.tokens.input_ids);
  const size_t size = row.tokens.input_ids.size();
  std::vector<std::string> pieces;
  for (const int32_t id : row.tokens.input_ids) pieces.push_back(tokenizer->piece(id));
  const std::string note = length_note(row, loaded.config.dataset.on_long);

  if (output.json()) {
    nlohmann::ordered_json json;
    json["id"] = row.example.id;
    json["file"] = row.example.place.file;
    json["line"] = row.example.place.line;
    json["text"] = text;
    json["pieces"] = pieces;
    json["input_ids"] = row.tokens.input_ids;
    json["loss_mask"] = row.tokens.loss_mask;
    json["positions"] = std::vector<int64_t>(row.batch.positions.begin(),
                                             row.batch.positions.begin() + static_cast<std::ptrdiff_t>(size));
    json["targets"] =
        std::vector<int64_t>(row.batch.targets.begin(), row.batch.targets.begin() + static_cast<std::ptrdiff_t>(size));
    json["target_tokens"] = row.batch.target_tokens;
    json["max_seq_length"] = row.max_seq_length;
    output.print(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
    if (!note.empty()) output.warn(note);
    return 0;
  }
  std::string table = fmt::format("{}:{} (id {}), format {}\n\n{}\n\n{} tokens, {} of them targets\n\n",
                                  row.example.place.file, row.example.place.line, row.example.id,
                                  choice_name(loaded.config.dataset.format), text, size, row.batch.target_tokens);
  table += fmt::format("{:>8}  {:>7}  {:>4}  {:>7}  {}\n", "position", "id", "mask", "target", "piece");
  for (size_t i = 0; i < size; ++i) {
    const int64_t target = row.batch.targets[i];
    table += fmt::format("{:>8}  {:>7}  {:>4}  {:>7}  {}\n", row.batch.positions[i], row.tokens.input_ids[i],
                         row.tokens.loss_mask[i], target < 0 ? "-" : std::to_string(target), json_quoted(pieces[i]));
  }
  output.print(table);
  if (!note.empty()) output.warn(note);
  return 0;
}

}  // namespace gemma_sft
