// A file of rows. The first byte picks the format (2 bits), parse_control_tokens, and what bad and long rows do.
#include <memory>
#include <string>
#include <variant>

#include "configs/error.h"
#include "data/batches/dataset_index.h"
#include "data/records/example_reader.h"
#include "data/text/tokenizer.h"
#include "tests/fuzz/fuzz_input.h"

namespace gemma_sft {
namespace {

const std::shared_ptr<const Tokenizer>& tokenizer() {
  static const std::shared_ptr<const Tokenizer> tiny =
      Tokenizer::load(std::string(GEMMA_SFT_SOURCE_DIR) + "/tests/data/fixtures/tiny_tokenizer.model");
  return tiny;
}

void check_rows(const std::string& file, DataFormat format) {
  ExampleReader reader(file, format, 1 << 12);
  while (const auto row = reader.next()) {
    const auto again = reader.read_at(row->offset);
    if (again.index() != row->content.index()) report_bug("a row reads differently the second time");
    const auto* problem = std::get_if<RowProblem>(&row->content);
    if (problem == nullptr) continue;
    require_showable(problem->message);
    if (problem->column < 1 || problem->place.line != row->offset.line) report_bug("a problem without a place");
    if (std::get<RowProblem>(again).message != problem->message) report_bug("a problem reads differently");
  }
}

void check_index(const std::string& file, const IndexOptions& options) {
  DatasetIndex index;
  if (!accepts([&] { index = index_dataset(file, *tokenizer(), options); })) return;
  const int64_t good = static_cast<int64_t>(index.train.size() + index.validation.size());
  if (good + index.skipped_rows != index.rows_read) report_bug("rows are neither used nor counted as skipped");
  RowLoader loader(index, tokenizer(), options.parse_control_tokens);
  for (const IndexedRow& row : index.train) {
    const TokenizedExample example = loader.load(row);
    if (example.input_ids.size() != row.tokens || example.loss_mask.size() != row.tokens) {
      report_bug("a row is not what the index says");
    }
    for (const int32_t id : example.input_ids) {
      if (id < 0 || id >= tokenizer()->size()) report_bug("an id outside the vocabulary");
    }
  }
}

}  // namespace
}  // namespace gemma_sft

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gemma_sft;
  if (size == 0) return 0;
  constexpr DataFormat kFormats[] = {DataFormat::kTrainingExample, DataFormat::kTunixSft, DataFormat::kTrace,
                                     DataFormat::kTokens};
  const unsigned choice = data[0];
  const std::string file = write_scratch("rows.jsonl", text_of(data + 1, size - 1)).string();
  IndexOptions options;
  options.format = kFormats[choice & 3];
  options.parse_control_tokens = (choice & 4) != 0;
  options.on_bad_record = (choice & 8) != 0 ? OnBadRecord::kSkip : OnBadRecord::kFail;
  options.on_long = (choice & 16) != 0 ? OnLong::kTruncate : OnLong::kSkip;
  options.max_seq_length = (choice & 32) != 0 ? 24 : 512;
  check_rows(file, options.format);
  check_index(file, options);
  return 0;
}
