#include "data/batches/dataset_index.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <limits>
#include <utility>
#include <variant>

#include "configs/error.h"
#include "data/files/input_file.h"
#include "data/files/json_text.h"
#include "data/files/line_reader.h"
#include "data/files/sha256.h"
#include "data/files/utf8.h"
#include "data/text/chat_template.h"

namespace gemma_sft {

namespace {

constexpr size_t kMaxShownProblems = 20;

// Finds ids that were seen before with 16 bytes a slot: a hit on the fingerprint is confirmed by reading the row again.
class SeenIds {
 public:
  explicit SeenIds(const std::string& file, DataFormat format) : reader_(file, format), slots_(1024) {}

  // The line of an earlier row with this id, else 0 and the row is remembered.
  uint32_t find_or_add(const std::string& id, uint64_t byte, uint32_t line) {
    if ((used_ + 1) * 5 > slots_.size() * 4) grow();
    const uint32_t fingerprint = fingerprint_of(id);
    size_t at = place(fingerprint);
    for (; slots_[at].line != 0; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].fingerprint == fingerprint && has_id(slots_[at], id)) return slots_[at].line;
    }
    slots_[at] = {byte, fingerprint, line};
    ++used_;
    return 0;
  }

 private:
  struct Slot {
    uint64_t byte = 0;
    uint32_t fingerprint = 0;
    uint32_t line = 0;  // 0: free
  };

  static uint32_t fingerprint_of(const std::string& id) {
    uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
    for (const char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return static_cast<uint32_t>(hash ^ hash >> 32);
  }

  size_t place(uint32_t fingerprint) const { return (fingerprint * 0x9e3779b97f4a7c15u >> 20) & (slots_.size() - 1); }

  bool has_id(const Slot& slot, const std::string& id) {
    const auto content = reader_.read_at({slot.byte, slot.line});
    const auto* example = std::get_if<Example>(&content);
    return example != nullptr && example->id == id;
  }

  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.line == 0) continue;
      size_t at = place(slot.fingerprint);
      while (slots_[at].line != 0) at = (at + 1) & (slots_.size() - 1);
      slots_[at] = slot;
    }
  }

  ExampleReader reader_;
  std::vector<Slot> slots_;  // a power of two of them
  size_t used_ = 0;
};

// What tells a file that was written to between two looks at it.
struct FileStamp {
  int64_t device = 0, inode = 0, size = 0, seconds = 0, nanoseconds = 0;
  bool operator==(const FileStamp&) const = default;
};

FileStamp stamp_of(const std::string& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) return {};
  return {static_cast<int64_t>(status.st_dev), static_cast<int64_t>(status.st_ino), status.st_size,
          status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
}

uint32_t checksum_of(const TokenizedExample& example) {
  uint32_t hash = 0x811c9dc5u;  // FNV-1a
  for (size_t i = 0; i < example.input_ids.size(); ++i) {
    hash = (hash ^ static_cast<uint32_t>(example.input_ids[i])) * 0x01000193u;
    hash = (hash ^ example.loss_mask[i]) * 0x01000193u;
  }
  return hash;
}

int64_t count_targets(const TokenizedExample& example) {
  return std::count_if(example.loss_mask.begin(), example.loss_mask.end(), [](uint8_t m) { return m != 0; });
}

void cut(TokenizedExample& example, int64_t length) {
  example.input_ids.resize(static_cast<size_t>(length));
  example.loss_mask.resize(static_cast<size_t>(length));
}

// What the validation split hashes. Rows of ready-made tokens: everything before the first target.
std::string prompt_of(const Example& example, const TokenizedExample& tokenized) {
  for (const Turn& turn : example.turns) {
    if (turn.role == Role::kUser) return turn.text;
  }
  std::string ids;
  for (size_t i = 0; i < tokenized.input_ids.size() && tokenized.loss_mask[i] == 0; ++i) {
    ids += fmt::format("{} ", tokenized.input_ids[i]);
  }
  return ids;
}

class Indexer {
 public:
  Indexer(const std::string& file, const Tokenizer& tokenizer, const IndexOptions& options)
      : tokenizer_(tokenizer),
        options_(options),
        mode_(options.parse_control_tokens ? ControlTokens::kParse : ControlTokens::kLiteral),
        vocab_size_(options.vocab_size > 0 ? options.vocab_size : tokenizer.size()),
        before_(stamp_of(file)),
        seen_(file, options.format),
        lines_(InputFile(file), ExampleReader::kDefaultMaxLineBytes) {
    index_.file = file;
    index_.format = options.format;
  }

  DatasetIndex run() {
    ExampleReader reader(index_.file, options_.format);
    int64_t good_rows = 0;
    while (!options_.max_samples || good_rows < *options_.max_samples) {
      if (stopping()) return std::move(index_);
      const std::unique_ptr<ExampleReader::Row> row = reader.next();
      if (row == nullptr) break;
      ++index_.rows_read;
      if (const auto* problem = std::get_if<RowProblem>(&row->content)) {
        bad_row(*problem);
        if (row->is_too_long && problems_ > 0) require_usable();  // without reading what may be a disk full
      } else if (add(std::get<Example>(row->content), row->offset)) {
        ++good_rows;
      }
    }
    is_read_ = true;
    if (problems_ > 0) {  // no digest, which nobody will need
      require_unchanged();
      require_usable();
    }
    Sha256 digest;
    std::string block(std::min<uint64_t>(lines_.file().size() + 1, 1 << 20), '\0');
    uint64_t at = 0;
    while (const size_t count = lines_.file().read_some(at, block.data(), block.size())) {
      if (stopping()) return std::move(index_);
      digest.update(block.data(), count);
      at += count;
    }
    index_.sha256 = digest.hex();
    require_unchanged();
    require_usable();
    return std::move(index_);
  }

 private:
  bool stopping() const { return options_.stop_requested && options_.stop_requested(); }

  RowProblem problem(const Example& example, int64_t column, const std::string& field, const std::string& what) const {
    return {example.place, column, field,
            fmt::format("{}:{}:{}: {}: {}", index_.file, example.place.line, column, field, what)};
  }

  std::string line_at(const RowOffset& offset) const { return lines_.at(offset.byte, offset.line).text; }

  void skip(const RowProblem& row) {
    ++index_.skipped_rows;
    if (index_.skipped.size() < DatasetIndex::kMaxSkippedKept) index_.skipped.push_back(row);
    if (options_.on_skipped) options_.on_skipped(row);
  }

  void bad_row(const RowProblem& row) {
    if (options_.on_bad_record == OnBadRecord::kSkip) {
      skip(row);
      return;
    }
    ++problems_;
    if (shown_.size() < kMaxShownProblems) shown_.push_back(row.message);
  }

  void too_long(const RowProblem& row) {
    if (options_.on_long == OnLong::kSkip) {
      skip(row);
    } else {
      ++long_rows_;
      bad_row(row);
    }
  }

  // Tokens that the row has whatever its text is.
  int64_t least_tokens(const Example& example) const {
    size_t bytes = 0;
    for (const Turn& turn : example.turns) bytes += strip_like_python(turn.text).size();
    return static_cast<int64_t>(bytes / tokenizer_.longest_piece_bytes());
  }

  // What is wrong with the row apart from its length, if anything.
  std::optional<RowProblem> check(const Example& example, const TokenizedExample& tokenized, const RowOffset& offset) {
    const auto unfit = find_unfit(example, tokenized, tokenizer_, vocab_size_);
    if (!unfit) return std::nullopt;
    if (unfit->field == "row") return problem(example, 1, unfit->field, unfit->what);
    const std::string name = unfit->element ? fmt::format("{}[{}]", unfit->field, *unfit->element) : unfit->field;
    return problem(example, column_of_member(line_at(offset), unfit->field, unfit->element), name, unfit->what);
  }

  // True when the row is good.
  bool add(const Example& example, const RowOffset& offset) {
    if (offset.line > std::numeric_limits<uint32_t>::max()) {
      throw Error(ErrorKind::kData, fmt::format("{}: more than {} lines; split the file", index_.file,
                                                std::numeric_limits<uint32_t>::max()));
    }
    const auto line = static_cast<uint32_t>(offset.line);
    if (const uint32_t first = seen_.find_or_add(example.id, offset.byte, line)) {
      bad_row(
          problem(example, column_of_member(line_at(offset), "id"), "id",
                  fmt::format("expected an id of its own, found {} as in line {}", quoted_excerpt(example.id), first)));
      return false;
    }
    if (const auto least = least_tokens(example);
        least > options_.max_seq_length && options_.on_long != OnLong::kTruncate) {
      too_long(problem(example, 1, "row",
                       fmt::format("expected at most {} tokens (model.max_seq_length), found at least {}",
                                   options_.max_seq_length, least)));
      return false;  // without tokenising what may be a book
    }
    TokenizedExample tokenized;
    try {
      tokenized = tokenize_example(tokenizer_, example, mode_);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kData) throw;
      bad_row(problem(example, 1, "row", error.what()));
      return false;
    }
    if (const auto found = check(example, tokenized, offset)) {
      bad_row(*found);
      return false;
    }
    const auto length = static_cast<int64_t>(tokenized.input_ids.size());
    const int64_t targets = count_targets(tokenized);
    const bool is_long = length > options_.max_seq_length;
    if (is_long && options_.on_long != OnLong::kTruncate) {
      too_long(problem(
          example, 1, "row",
          fmt::format("expected at most {} tokens (model.max_seq_length), found {}", options_.max_seq_length, length)));
      return false;
    }
    if (is_long) cut(tokenized, options_.max_seq_length);
    const int64_t targets_left = is_long ? count_targets(tokenized) : targets;
    if (targets_left == 0) {
      bad_row(
          problem(example, 1, "row",
                  fmt::format("expected a target among the first {} tokens (model.max_seq_length), found none: all {} "
                              "would be cut off",
                              options_.max_seq_length, targets)));
      return false;
    }

    IndexedRow row;
    row.byte = offset.byte;
    row.line = line;
    row.tokens = static_cast<uint32_t>(tokenized.input_ids.size());
    row.target_tokens = static_cast<uint32_t>(targets_left);
    row.checksum = checksum_of(tokenized);
    const bool is_validation = options_.validation_fraction > 0 &&
                               is_validation_prompt(prompt_of(example, tokenized), options_.validation_fraction);
    (is_validation ? index_.validation : index_.train).push_back(row);
    index_.longest_tokens = std::max<int64_t>(index_.longest_tokens, row.tokens);
    if (is_long) index_.truncated.push_back(line);
    if (targets_left < targets) index_.truncated_targets.push_back(line);
    const bool spells_control = std::any_of(example.turns.begin(), example.turns.end(), [&](const Turn& turn) {
      return tokenizer_.spells_control_token(turn.text);
    });
    if (spells_control) index_.control_text.push_back(line);
    for (const std::string& field : example.unread_fields) {
      if (index_.unread_fields.size() < DatasetIndex::kMaxUnreadFields || index_.unread_fields.contains(field)) {
        ++index_.unread_fields[field];
      }
    }
    return true;
  }

  void require_unchanged() const {
    if (stamp_of(index_.file) == before_) return;
    throw Error(ErrorKind::kData,
                fmt::format("{}: changed while it was being read; start again once it is complete", index_.file));
  }

  void require_usable() const {
    if (problems_ > 0) {
      std::string message =
          fmt::format("{}: {} of {} rows cannot be trained on:", index_.file, problems_, index_.rows_read);
      for (const std::string& shown : shown_) message += "\n  " + shown;
      if (problems_ > static_cast<int64_t>(shown_.size())) {
        message += fmt::format("\n  and {} more", problems_ - static_cast<int64_t>(shown_.size()));
      }
      message += "\nfix the rows";
      if (!is_read_ || problems_ < index_.rows_read) message += ", or set dataset.on_bad_record: skip";
      if (long_rows_ > 0)
        message += "; for long rows raise model.max_seq_length or set dataset.on_long: skip or truncate";
      throw Error(ErrorKind::kData, message);
    }
    if (!index_.train.empty()) return;
    if (index_.rows_read == 0) {
      throw Error(ErrorKind::kData, fmt::format("{}: holds no rows; give a file with at least one", index_.file));
    }
    if (!index_.validation.empty()) {
      throw Error(ErrorKind::kData,
                  fmt::format("{}: all {} rows fell to the validation side; lower dataset.validation_fraction ({})",
                              index_.file, index_.validation.size(), options_.validation_fraction));
    }
    if (index_.skipped_rows == 0) {
      throw Error(ErrorKind::kData,
                  fmt::format("{}: dataset.max_samples leaves no row; raise it or leave it out", index_.file));
    }
    throw Error(ErrorKind::kData,
                fmt::format("{}: no row is left, {} of {} were skipped; the first because of\n  {}\nfix the "
                            "rows",
                            index_.file, index_.skipped_rows, index_.rows_read, index_.skipped.front().message));
  }

  const Tokenizer& tokenizer_;
  const IndexOptions& options_;
  const ControlTokens mode_;
  const int64_t vocab_size_;
  const FileStamp before_;
  SeenIds seen_;  // says best what is wrong with a file that cannot be opened
  LineReader lines_;
  DatasetIndex index_;
  std::vector<std::string> shown_;
  bool is_read_ = false;  // all rows that are asked for
  int64_t problems_ = 0;
  int64_t long_rows_ = 0;  // among problems_
};

}  // namespace

std::optional<UnfitRow> find_unfit(const Example& example, const TokenizedExample& tokenized,
                                   const Tokenizer& tokenizer, int64_t vocab_size) {
  const auto& ids = tokenized.input_ids;
  const auto& mask = tokenized.loss_mask;
  if (example.tokens) {
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] >= 0 && ids[i] < vocab_size) continue;
      return UnfitRow{"input_ids", i,
                      fmt::format("expected an id of the vocabulary, 0 to {}, found {}", vocab_size - 1, ids[i])};
    }
    if (ids.empty() || ids.size() != mask.size() || mask[0] != 0) {
      return UnfitRow{"loss_mask", std::nullopt,
                      "expected as many values as input_ids, the first of them 0; found something else"};
    }
  } else {
    const auto bos = std::count(ids.begin(), ids.end(), tokenizer.bos_id());
    if (bos != 1) {
      return UnfitRow{"row", std::nullopt,
                      fmt::format("expected exactly one <bos>, found {}: the text spells it; remove it there, or set "
                                  "dataset.parse_control_tokens: false",
                                  bos)};
    }
    const size_t n = ids.size();
    if (n < 3 || ids[n - 2] != tokenizer.end_of_turn_id() || mask[n - 2] == 0 || mask[n - 1] == 0) {
      return UnfitRow{"row", std::nullopt, "expected the last <end_of_turn> to be a target, found that it is none"};
    }
  }
  if (count_targets(tokenized) == 0) return UnfitRow{"row", std::nullopt, "expected at least one target, found none"};
  return std::nullopt;
}

DatasetIndex index_dataset(const std::string& file, const Tokenizer& tokenizer, const IndexOptions& options) {
  return Indexer(file, tokenizer, options).run();
}

bool is_validation_prompt(std::string_view prompt, double fraction) {
  const std::string hex = sha256_hex(strip_like_python(prompt));
  // The first 52 bits, as a number in [0, 1).
  const uint64_t bits = std::stoull(hex.substr(0, 13), nullptr, 16);
  return std::ldexp(static_cast<double>(bits), -52) < fraction;
}

struct RowLoader::State {
  std::string file;
  std::shared_ptr<const Tokenizer> tokenizer;
  ControlTokens mode;
  ExampleReader reader;
};

RowLoader::RowLoader(const DatasetIndex& index, std::shared_ptr<const Tokenizer> tokenizer, bool parse_control_tokens)
    : state_(new State{index.file, std::move(tokenizer),
                       parse_control_tokens ? ControlTokens::kParse : ControlTokens::kLiteral,
                       ExampleReader(index.file, index.format)}) {}

RowLoader::~RowLoader() = default;
RowLoader::RowLoader(RowLoader&&) noexcept = default;

TokenizedExample RowLoader::load(const IndexedRow& row) {
  const auto content = state_->reader.read_at({row.byte, row.line});
  TokenizedExample tokenized;
  if (const auto* example = std::get_if<Example>(&content)) {
    try {
      tokenized = tokenize_example(*state_->tokenizer, *example, state_->mode);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kData) throw;
      tokenized = {};
    }
  }
  const bool is_complete = tokenized.input_ids.size() >= row.tokens && tokenized.loss_mask.size() >= row.tokens;
  if (is_complete) cut(tokenized, row.tokens);
  if (!is_complete || checksum_of(tokenized) != row.checksum) {
    throw Error(
        ErrorKind::kData,
        fmt::format("{}:{}: the row is not what it was when the run began; a data file must not change while it is "
                    "trained on: put it back and resume, or start a new run",
                    state_->file, row.line));
  }
  return tokenized;
}

}  // namespace gemma_sft
