#include <fmt/format.h>

#include <string>

#include "configs/error.h"
#include "configs/load_config.h"
#include "data/batches/explain_row.h"
#include "data/text/tokenizer.h"
#include "model/gemma_config.h"
#include "model/hub_cache.h"
#include "trainer/cli/front_end_commands.h"
#include "trainer/cli/train_request.h"
#include "trainer/train_plan.h"

namespace gemma_sft {
namespace {

std::string length_note(const RowExplanation& row, const IndexOptions& options) {
  const auto length = static_cast<int64_t>(row.tokens.size()) + row.cut_tokens;
  if (length <= options.max_seq_length) return "";
  const char* consequence = options.on_long == OnLong::kSkip   ? "skip leaves it out of training"
                            : options.on_long == OnLong::kFail ? "fail makes it a bad record"
                            : row.target_tokens > 0            ? "truncate cuts it to what is shown"
                                                    : "truncate would leave no target, which makes it a bad record";
  return fmt::format("the row has {} tokens and model.max_seq_length is {}: dataset.on_long: {}", length,
                     options.max_seq_length, consequence);
}

}  // namespace

int run_explain(const ExplainArguments& arguments, const Output& output) {
  LoadOptions load_options;
  load_options.assignments = arguments.assignments;
  const LoadedConfig loaded = load_config(arguments.config, load_options);
  const RunConfig& config = loaded.config;
  const std::filesystem::path rows = require_rows(find_dataset(loaded));
  const std::filesystem::path folder = find_base_model(config.model, loaded.file);
  const GemmaConfig shape = load_gemma_config(folder);
  const IndexOptions options =
      make_index_options(config, shape.vocab_size, choose_max_seq_length(config, shape.max_position_embeddings));
  const RowExplanation row = explain_row(rows.string(), arguments.row, Tokenizer::load(folder), options);
  output.print(output.json() ? to_json(row) + "\n" : to_text(row));
  if (!row.problem.empty()) output.warn("the row is a bad record: " + row.problem);
  if (!row.unread_fields.empty()) {
    output.warn(fmt::format("fields of the row that are not read: {}", fmt::join(row.unread_fields, ", ")));
  }
  const std::string note = length_note(row, options);
  if (!note.empty()) output.warn(note);
  return 0;
}

}  // namespace gemma_sft
