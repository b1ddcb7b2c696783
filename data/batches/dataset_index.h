// One pass over a data file before step 1: every row is parsed, checked, tokenised and measured; kept are 24 bytes a
// row.
//
// Checked here: JSON, UTF-8, fields, types, duplicate ids, at least one target, length against max_seq_length, and for
// rows made by the template exactly one BOS and the turn's end supervised. on_bad_record and on_long decide what a bad
// row does; nothing is dropped or cut silently: `on_skipped` hears of each row left out, `truncated` and `control_text`
// name each row cut or suspicious.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/run_config.h"
#include "data/records/example_reader.h"
#include "data/text/tokenizer.h"

namespace gemma_sft {

struct IndexedRow {
  uint64_t byte = 0;    // start of the line
  uint32_t line = 0;    // from 1
  uint32_t tokens = 0;  // after truncation
  uint32_t target_tokens = 0;
  uint32_t checksum = 0;  // of ids and mask after truncation: tells a row that changed during the run
};

struct IndexOptions {
  DataFormat format = DataFormat::kTrainingExample;
  int64_t max_seq_length = 2048;
  OnBadRecord on_bad_record = OnBadRecord::kFail;
  OnLong on_long = OnLong::kFail;
  std::optional<int64_t> max_samples = std::nullopt;  // good rows after which reading stops
  bool parse_control_tokens = false;
  double validation_fraction = 0.0;  // split by a hash of the prompt
  int64_t vocab_size = 0;            // for format `tokens`: ids must be below; 0: the tokenizer's size
  std::function<bool()> stop_requested =
      nullptr;  // polled per row: true makes index_dataset return early with what it has
  std::function<void(const RowProblem&)> on_skipped =
      nullptr;  // each skipped row, in file order: DatasetIndex::skipped holds only the first ones
};

// Rows of one file that will be trained on (or evaluated). Immutable; safe to share between threads.
struct DatasetIndex {
  static constexpr size_t kMaxSkippedKept = 100;
  static constexpr size_t kMaxUnreadFields = 20;

  std::string file;
  std::string sha256;  // of the whole file's bytes; empty when stop_requested ended the pass
  DataFormat format = DataFormat::kTrainingExample;
  std::vector<IndexedRow> train;
  std::vector<IndexedRow> validation;  // from validation_fraction
  int64_t rows_read = 0;
  int64_t longest_tokens = 0;
  int64_t skipped_rows = 0;                 // on_bad_record: skip / on_long: skip; all of them
  std::vector<RowProblem> skipped;          // the first of them, at most kMaxSkippedKept
  std::vector<uint32_t> truncated;          // lines of the rows cut by on_long: truncate
  std::vector<uint32_t> truncated_targets;  // lines of those whose targets were cut
  std::vector<uint32_t> control_text;       // lines of the rows whose contents spell a control token
  // Good rows by the fields in them that were not read (Example::unread_fields); at most kMaxUnreadFields names.
  std::map<std::string, int64_t> unread_fields;
};

// A row longer than max_seq_length is a bad record when on_long is fail, and on_bad_record then decides. Ids are
// compared among all rows that could be parsed; of equal ones the first is good. Truncation cuts the tail; a row left
// without a target is a bad record. Throws Error(kData) with up to 20 problems (and the exact total) when on_bad_record
// is fail, when no row is left to train on, or when the file changes meanwhile. Returns early, with what it has, when
// options.stop_requested says so: the caller checks. Memory: the index, and 16 to 32 bytes a row for the ids while it
// runs.
DatasetIndex index_dataset(const std::string& file, const Tokenizer& tokenizer, const IndexOptions& options);

// What keeps a tokenised row from being trained on, its length apart.
struct UnfitRow {
  std::string field;  // "row" for the whole of it
  std::optional<size_t> element;
  std::string what;  // "expected ..., found ..."
};
// Nullopt: the row is good. `vocab_size`: the ids of format `tokens` must be below.
std::optional<UnfitRow> find_unfit(const Example& example, const TokenizedExample& tokenized,
                                   const Tokenizer& tokenizer, int64_t vocab_size);

// Which side of the split a prompt is on: a pure function of its trimmed text, the same in every file.
bool is_validation_prompt(std::string_view prompt, double fraction);

// Reads and tokenises one indexed row again, cut exactly as the index says. One instance per thread; the index must
// outlive it.
class RowLoader {
 public:
  // `parse_control_tokens` as when the index was made.
  RowLoader(const DatasetIndex& index, std::shared_ptr<const Tokenizer> tokenizer, bool parse_control_tokens);
  ~RowLoader();
  RowLoader(RowLoader&&) noexcept;
  // Throws Error(kData) when the row is no longer what was indexed.
  TokenizedExample load(const IndexedRow& row);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gemma_sft
