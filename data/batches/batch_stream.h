// Composes reading, tokenising, ordering and packing: gives one optimizer step's micro-batches after another,
// prefetched on a thread of its own.
//
// A step takes gradient_accumulation_steps micro-batches; the last step of an epoch takes what is left. Data order is a
// pure function of (seed, epoch, position): a cursor is three numbers, seeking reads nothing. `position` alone decides
// where a stream goes on, so a cursor stays good when batch_size or accumulation change.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/batches/dataset_index.h"
#include "data/batches/packed_batch.h"
#include "data/batches/packer.h"

namespace gemma_sft {

// The place after the last step handed out. The end of an epoch is the start of the next one: {epoch + 1, 0, 0}.
struct DataCursor {
  int64_t epoch = 0;          // from 0
  int64_t step_in_epoch = 0;  // optimizer steps done in this epoch
  int64_t position = 0;       // rows of this epoch consumed

  bool operator==(const DataCursor&) const = default;
};

struct BatchOptions {
  int64_t batch_size = 4;
  int64_t batch_tokens =
      0;  // > 0: fill micro-batches up to this many tokens (padding counted) instead of batch_size rows
  int64_t accumulation = 1;
  uint64_t seed = 42;
  bool shuffle = true;
  bool parse_control_tokens = false;
  PackOptions pack = {};
  int prefetch_steps = 2;
};

// What one optimizer step trains on.
struct StepBatches {
  std::vector<PackedBatch> micro_batches;  // 1 to `accumulation`
  DataCursor cursor;                       // after this step
  double epoch = 0;                        // finished part of the run in epochs after this step, e.g. 1.25
};

// Optimizer steps of one epoch. For batch_size: ceil(ceil(n / batch_size) / accumulation). For batch_tokens it depends
// on the epoch's order: micro-batches take rows in that order while they fit, and one pass over the index's lengths
// counts them. Throws Error(kUsage) when batch_tokens is less than the longest row, as do the constructors below.
int64_t steps_in_epoch(const DatasetIndex& index, const BatchOptions& options, int64_t epoch);

// The micro-batch with the most places, padding included, among those of the next `steps` steps from `from` on; the
// first of equals. Reads the index alone, and looks at no more than kMostRowsLookedAt rows: a run over more is taken to
// hold nothing larger.
struct LargestMicroBatch {
  DataCursor step_start;    // where a stream stands before the step that it is part of
  int64_t steps_ahead = 0;  // that step's number from `from` on, from 0
  size_t micro_batch = 0;   // its place in that step
  int64_t places = 0;
};
inline constexpr int64_t kMostRowsLookedAt = 20'000'000;
LargestMicroBatch find_largest_micro_batch(const DatasetIndex& index, const BatchOptions& options,
                                           const DataCursor& from, int64_t steps);

// One consumer thread. Errors of the prefetch thread (a file that vanished, a row that changed: Error(kData),
// Error(kIo)) are rethrown by next() in their turn, after the steps that came before. The thread starts with the first
// next() and blocks all signals.
class BatchStream {
 public:
  BatchStream(std::shared_ptr<const DatasetIndex> index, std::shared_ptr<const Tokenizer> tokenizer,
              BatchOptions options);
  ~BatchStream();
  StepBatches next();                   // never ends: epoch after epoch
  DataCursor cursor() const;            // of the last step handed out by next(), not of the prefetched one
  void seek(const DataCursor& cursor);  // throws Error(kCheckpoint) for numbers that no cursor has
  double waited_seconds() const;        // time next() waited for data since construction

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Validation rows in file order, `batch_size` at a time (or up to batch_tokens): for evaluation. One thread at a time.
class EvaluationStream {
 public:
  EvaluationStream(std::shared_ptr<const DatasetIndex> index, std::vector<IndexedRow> rows,
                   std::shared_ptr<const Tokenizer> tokenizer, const BatchOptions& options);
  ~EvaluationStream();
  std::unique_ptr<PackedBatch> next();  // nullptr at the end; rewind() starts over
  void rewind();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gemma_sft
