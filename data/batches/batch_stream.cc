#include "data/batches/batch_stream.h"

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "configs/error.h"
#include "data/batches/sample_order.h"

namespace gemma_sft {

namespace {

void require_options(const BatchOptions& options) {
  if (options.batch_size < 1 || options.batch_tokens < 0 || options.accumulation < 1) {
    throw Error(ErrorKind::kInternal, fmt::format("batch_size {}, batch_tokens {}, accumulation {} make no batches",
                                                  options.batch_size, options.batch_tokens, options.accumulation));
  }
}

void require_budget_for(const std::vector<IndexedRow>& rows, const std::string& file, int64_t batch_tokens) {
  if (batch_tokens == 0) return;
  const auto longest = std::max_element(rows.begin(), rows.end(),
                                        [](const IndexedRow& a, const IndexedRow& b) { return a.tokens < b.tokens; });
  if (longest != rows.end() && longest->tokens > batch_tokens) {
    throw Error(
        ErrorKind::kUsage,
        fmt::format("training.batch_tokens: {} is less than the {} tokens of {}:{}; raise it to at least {}, or lower "
                    "model.max_seq_length and set dataset.on_long",
                    batch_tokens, longest->tokens, file, longest->line, longest->tokens));
  }
}

// How many of the rows, whose lengths `tokens_at` gives, go into the micro-batch that starts at `begin`.
template <typename TokensAt>
int64_t rows_of_micro_batch(int64_t begin, int64_t rows, const BatchOptions& options, TokensAt tokens_at) {
  if (options.batch_tokens == 0) return std::min(options.batch_size, rows - begin);
  int64_t count = 0;
  int64_t longest = 0;
  int64_t total = 0;
  for (; begin + count < rows; ++count) {
    const int64_t tokens = tokens_at(begin + count);
    longest = std::max(longest, tokens);
    total += tokens;
    const int64_t taken = options.pack.packing ? total : longest * (count + 1);
    if (taken > options.batch_tokens && count > 0) break;
  }
  return count;
}

PackedBatch load_batch(RowLoader& loader, const std::vector<const IndexedRow*>& rows, const std::string& file,
                       const PackOptions& options) {
  std::vector<TokenizedExample> examples;
  std::vector<int64_t> lines;
  for (const IndexedRow* row : rows) {
    examples.push_back(loader.load(*row));
    lines.push_back(row->line);
  }
  return pack(examples, lines, file, options);
}

}  // namespace

int64_t steps_in_epoch(const DatasetIndex& index, const BatchOptions& options, int64_t epoch) {
  require_options(options);
  const auto rows = static_cast<int64_t>(index.train.size());
  if (rows == 0) return 0;
  require_budget_for(index.train, index.file, options.batch_tokens);
  int64_t micro_batches = 0;
  if (options.batch_tokens == 0) {
    micro_batches = (rows - 1) / options.batch_size + 1;
  } else {
    const SampleOrder order(options.seed, epoch, rows, options.shuffle);
    for (int64_t at = 0; at < rows; ++micro_batches) {
      at += rows_of_micro_batch(at, rows, options, [&](int64_t position) {
        return static_cast<int64_t>(index.train[static_cast<size_t>(order.at(position))].tokens);
      });
    }
  }
  return (micro_batches - 1) / options.accumulation + 1;
}

LargestMicroBatch find_largest_micro_batch(const DatasetIndex& index, const BatchOptions& options,
                                           const DataCursor& from, int64_t steps) {
  require_options(options);
  const auto rows = static_cast<int64_t>(index.train.size());
  LargestMicroBatch largest;
  DataCursor at = from;
  std::optional<SampleOrder> order;
  const auto tokens_at = [&](int64_t position) -> int64_t {
    return index.train[static_cast<size_t>(order->at(position))].tokens;
  };
  int64_t looked_at = 0;
  for (int64_t step = 0; step < steps && rows > 0 && looked_at < kMostRowsLookedAt; ++step) {
    if (at.position >= rows) at = {at.epoch + 1, 0, 0};
    if (!order || at.position == 0) order.emplace(options.seed, at.epoch, rows, options.shuffle);
    const DataCursor step_start = at;
    for (int64_t micro = 0; micro < options.accumulation && at.position < rows; ++micro) {
      const int64_t count = rows_of_micro_batch(at.position, rows, options, tokens_at);
      int64_t total = 0;
      int64_t longest = 0;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t tokens = tokens_at(at.position + i);
        total += tokens;
        longest = std::max(longest, tokens);
      }
      const int64_t places = options.pack.packing ? total : longest * count;
      if (places > largest.places) largest = {step_start, step, static_cast<size_t>(micro), places};
      at.position += count;
      looked_at += count;
    }
    ++at.step_in_epoch;
  }
  return largest;
}

struct BatchStream::State {
  std::shared_ptr<const DatasetIndex> index;
  std::shared_ptr<const Tokenizer> tokenizer;
  BatchOptions options;
  int64_t rows = 0;

  DataCursor cursor;  // the consumer's
  double waited = 0;

  // What the prefetch thread hands over: steps, and behind the last of them the error that ended it.
  std::mutex mutex;
  std::condition_variable_any changed;
  std::deque<StepBatches> ready;
  std::exception_ptr error;
  std::jthread thread;  // the last member: it ends before what it uses

  StepBatches make_step(RowLoader& loader, const DataCursor& from) const {
    const SampleOrder order(options.seed, from.epoch, rows, options.shuffle);
    const auto row_at = [&](int64_t position) -> const IndexedRow& {
      return index->train[static_cast<size_t>(order.at(position))];
    };
    StepBatches step;
    int64_t position = from.position;
    for (int64_t micro = 0; micro < options.accumulation && position < rows; ++micro) {
      const int64_t count =
          rows_of_micro_batch(position, rows, options, [&](int64_t p) -> int64_t { return row_at(p).tokens; });
      std::vector<const IndexedRow*> batch_rows;
      for (int64_t i = 0; i < count; ++i) batch_rows.push_back(&row_at(position + i));
      step.micro_batches.push_back(load_batch(loader, batch_rows, index->file, options.pack));
      position += count;
    }
    step.cursor =
        position < rows ? DataCursor{from.epoch, from.step_in_epoch + 1, position} : DataCursor{from.epoch + 1, 0, 0};
    step.epoch =
        static_cast<double>(step.cursor.epoch) + static_cast<double>(step.cursor.position) / static_cast<double>(rows);
    return step;
  }

  void produce(const std::stop_token& stop, DataCursor at) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals are for the training thread
    try {
      make_steps(stop, at);
    } catch (...) {  // what leaves a thread ends the process; to keep it here takes no memory
      const std::lock_guard lock(mutex);
      error = std::current_exception();
    }
    changed.notify_all();
  }

  // Until it is told to stop.
  void make_steps(const std::stop_token& stop, DataCursor at) {
    const auto room = static_cast<size_t>(std::max(1, options.prefetch_steps));
    RowLoader loader(*index, tokenizer, options.parse_control_tokens);
    for (;;) {
      {
        std::unique_lock lock(mutex);
        if (!changed.wait(lock, stop, [&] { return ready.size() < room; })) return;
      }
      StepBatches step = make_step(loader, at);
      at = step.cursor;
      {
        const std::lock_guard lock(mutex);
        if (stop.stop_requested()) return;
        ready.push_back(std::move(step));
      }
      changed.notify_all();
    }
  }

  void stop_thread() {
    if (!thread.joinable()) return;
    thread.request_stop();
    thread.join();
    thread = std::jthread();
    ready.clear();
    error = nullptr;
  }
};

BatchStream::BatchStream(std::shared_ptr<const DatasetIndex> index, std::shared_ptr<const Tokenizer> tokenizer,
                         BatchOptions options)
    : state_(std::make_unique<State>()) {
  require_options(options);
  state_->rows = static_cast<int64_t>(index->train.size());
  if (state_->rows == 0)
    throw Error(ErrorKind::kInternal, fmt::format("{}: a stream of no rows was asked for", index->file));
  require_budget_for(index->train, index->file, options.batch_tokens);
  state_->index = std::move(index);
  state_->tokenizer = std::move(tokenizer);
  state_->options = std::move(options);
}

BatchStream::~BatchStream() { state_->stop_thread(); }

StepBatches BatchStream::next() {
  State& state = *state_;
  if (!state.thread.joinable()) {
    state.thread = std::jthread([&state, at = state.cursor](const std::stop_token& stop) { state.produce(stop, at); });
  }
  const auto start = std::chrono::steady_clock::now();
  std::unique_lock lock(state.mutex);
  state.changed.wait(lock, [&] { return !state.ready.empty() || state.error != nullptr; });
  state.waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (state.ready.empty()) std::rethrow_exception(state.error);  // stays there for the next call
  StepBatches step = std::move(state.ready.front());
  state.ready.pop_front();
  lock.unlock();
  state.changed.notify_all();
  state.cursor = step.cursor;
  return step;
}

DataCursor BatchStream::cursor() const { return state_->cursor; }

void BatchStream::seek(const DataCursor& cursor) {
  if (cursor.epoch < 0 || cursor.step_in_epoch < 0 || cursor.position < 0) {
    throw Error(ErrorKind::kCheckpoint,
                fmt::format("the data position (epoch {}, step {}, row {}) is negative; the checkpoint is broken",
                            cursor.epoch, cursor.step_in_epoch, cursor.position));
  }
  state_->stop_thread();
  // A data file that shrank since the cursor was taken: its epoch is over.
  state_->cursor = cursor.position < state_->rows ? cursor : DataCursor{cursor.epoch + 1, 0, 0};
}

double BatchStream::waited_seconds() const { return state_->waited; }

struct EvaluationStream::State {
  std::shared_ptr<const DatasetIndex> index;
  std::vector<IndexedRow> rows;
  BatchOptions options;
  RowLoader loader;
  int64_t at = 0;
};

EvaluationStream::EvaluationStream(std::shared_ptr<const DatasetIndex> index, std::vector<IndexedRow> rows,
                                   std::shared_ptr<const Tokenizer> tokenizer, const BatchOptions& options) {
  require_options(options);
  require_budget_for(rows, index->file, options.batch_tokens);
  RowLoader loader(*index, std::move(tokenizer), options.parse_control_tokens);
  state_.reset(new State{std::move(index), std::move(rows), options, std::move(loader)});
}

EvaluationStream::~EvaluationStream() = default;

std::unique_ptr<PackedBatch> EvaluationStream::next() {
  State& state = *state_;
  const auto rows = static_cast<int64_t>(state.rows.size());
  if (state.at >= rows) return nullptr;
  const int64_t count = rows_of_micro_batch(state.at, rows, state.options, [&](int64_t position) -> int64_t {
    return state.rows[static_cast<size_t>(position)].tokens;
  });
  std::vector<const IndexedRow*> batch_rows;
  for (int64_t i = 0; i < count; ++i) batch_rows.push_back(&state.rows[static_cast<size_t>(state.at + i)]);
  state.at += count;
  return std::make_unique<PackedBatch>(load_batch(state.loader, batch_rows, state.index->file, state.options.pack));
}

void EvaluationStream::rewind() { state_->at = 0; }

}  // namespace gemma_sft
