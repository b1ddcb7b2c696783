#include "data/batches/batch_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "configs/error.h"
#include "data/batches/sample_order.h"
#include "tests/data/batches/rows_file.h"
#include "tests/data/text/tiny_tokenizer.h"

namespace gemma_sft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// 23 rows of different lengths; the id of a row is its place in the file.
std::string some_rows(int rows = 23) {
  std::string text;
  for (int i = 0; i < rows; ++i) {
    text += training_row(std::to_string(i), "prompt " + std::to_string(i * 7919), std::string(1 + (i * 5) % 13, 'a'));
  }
  return text;
}

std::shared_ptr<const DatasetIndex> index_of(const RowsFile& file) {
  return std::make_shared<DatasetIndex>(index_dataset(file.path(), *tiny_tokenizer(), {}));
}

std::vector<std::string> row_ids(const StepBatches& step) {
  std::vector<std::string> ids;
  for (const PackedBatch& batch : step.micro_batches) ids.insert(ids.end(), batch.row_ids.begin(), batch.row_ids.end());
  return ids;
}

class BatchStreamTest : public testing::Test {
 protected:
  const RowsFile file_{some_rows()};
  const std::shared_ptr<const DatasetIndex> index_ = index_of(file_);
};

TEST_F(BatchStreamTest, StepsOfAnEpochAreRoundedUpTwice) {
  for (int64_t rows = 1; rows <= 40; ++rows) {
    DatasetIndex index;
    index.train.resize(static_cast<size_t>(rows));
    for (int64_t batch_size = 1; batch_size <= 9; ++batch_size) {
      for (int64_t accumulation = 1; accumulation <= 5; ++accumulation) {
        const auto up = [](int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); };
        ASSERT_EQ(steps_in_epoch(index, {.batch_size = batch_size, .accumulation = accumulation}, 0),
                  up(up(rows, batch_size), accumulation));
      }
    }
  }
}

TEST_F(BatchStreamTest, TheLargestMicroBatchOfARunIsTheOneThatAStreamGives) {
  for (const bool packing : {true, false}) {
    for (const int64_t batch_tokens : {0, 90}) {
      for (const DataCursor& from : {DataCursor{0, 0, 0}, DataCursor{1, 1, 8}}) {
        const BatchOptions options{
            .batch_size = 4, .batch_tokens = batch_tokens, .accumulation = 2, .seed = 5, .pack = {.packing = packing}};
        constexpr int64_t kSteps = 11;
        BatchStream stream(index_, tiny_tokenizer(), options);
        stream.seek(from);
        LargestMicroBatch wanted;
        for (int64_t step = 0; step < kSteps; ++step) {
          const DataCursor before = stream.cursor();
          const StepBatches batches = stream.next();
          for (size_t i = 0; i < batches.micro_batches.size(); ++i) {
            const int64_t places = batches.micro_batches[i].tokens();
            if (places > wanted.places) wanted = {before, step, i, places};
          }
        }
        const LargestMicroBatch found = find_largest_micro_batch(*index_, options, from, kSteps);
        EXPECT_EQ(found.places, wanted.places);
        EXPECT_EQ(found.steps_ahead, wanted.steps_ahead);
        EXPECT_EQ(found.micro_batch, wanted.micro_batch);
        BatchStream there(index_, tiny_tokenizer(), options);
        there.seek(found.step_start);
        EXPECT_EQ(there.next().micro_batches.at(found.micro_batch).tokens(), wanted.places);
      }
    }
  }
}

TEST_F(BatchStreamTest, AnEpochTakesEveryRowOnceInTheOrderOfSampleOrder) {
  const BatchOptions options{.batch_size = 4, .accumulation = 2, .seed = 9};
  BatchStream stream(index_, tiny_tokenizer(), options);
  EXPECT_EQ(stream.cursor(), (DataCursor{0, 0, 0}));
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    const SampleOrder order(9, epoch, 23, true);
    int64_t position = 0;
    const int64_t steps = steps_in_epoch(*index_, options, epoch);
    EXPECT_EQ(steps, 3);
    for (int64_t step = 0; step < steps; ++step) {
      const StepBatches batches = stream.next();
      EXPECT_EQ(batches.micro_batches.size(), 2u);
      for (const std::string& id : row_ids(batches)) EXPECT_EQ(id, std::to_string(order.at(position++)));
      EXPECT_EQ(stream.cursor(), batches.cursor);
      EXPECT_EQ(batches.cursor,
                step + 1 < steps ? (DataCursor{epoch, step + 1, position}) : (DataCursor{epoch + 1, 0, 0}));
      EXPECT_DOUBLE_EQ(batches.epoch, static_cast<double>(epoch) + static_cast<double>(position) / 23);
    }
    EXPECT_EQ(position, 23);
  }
}

TEST_F(BatchStreamTest, TheRemainderIsAStepOfItsOwn) {
  BatchStream stream(index_, tiny_tokenizer(), {.batch_size = 5, .accumulation = 4});  // 20 rows, then 3
  EXPECT_EQ(stream.next().micro_batches.size(), 4u);
  const StepBatches last = stream.next();
  ASSERT_EQ(last.micro_batches.size(), 1u);
  EXPECT_EQ(last.micro_batches[0].documents(), 3);
  EXPECT_EQ(last.epoch, 1.0);
}

TEST_F(BatchStreamTest, AStepHasTheSameTokensHoweverItIsCutIntoMicroBatches) {
  const auto steps_of = [&](int64_t batch_size, int64_t accumulation, bool packing) {
    BatchStream stream(index_, tiny_tokenizer(),
                       {.batch_size = batch_size, .accumulation = accumulation, .pack = {.packing = packing}});
    std::vector<std::vector<int64_t>> steps;
    for (int i = 0; i < 8; ++i) {
      const StepBatches step = stream.next();
      std::vector<int64_t> tokens;
      for (const PackedBatch& batch : step.micro_batches) {
        for (int64_t d = 0; d < batch.documents(); ++d) {
          const auto begin = static_cast<size_t>(batch.document_offsets[static_cast<size_t>(d)]);
          const auto length = static_cast<size_t>(batch.document_lengths[static_cast<size_t>(d)]);
          tokens.insert(tokens.end(), batch.input_ids.begin() + begin, batch.input_ids.begin() + begin + length);
          tokens.insert(tokens.end(), batch.targets.begin() + begin, batch.targets.begin() + begin + length);
        }
      }
      steps.push_back(tokens);
    }
    return steps;
  };
  const auto whole = steps_of(8, 1, true);
  EXPECT_EQ(whole, steps_of(4, 2, true));
  EXPECT_EQ(whole, steps_of(1, 8, true));
  EXPECT_EQ(whole, steps_of(8, 1, false));
  EXPECT_EQ(whole, steps_of(2, 4, false));
}

TEST_F(BatchStreamTest, SeekingGivesWhatReplayingGives) {
  for (const int64_t batch_tokens : {int64_t{0}, int64_t{200}}) {
    const BatchOptions options{.batch_size = 3, .batch_tokens = batch_tokens, .accumulation = 2};
    BatchStream replayed(index_, tiny_tokenizer(), options);
    std::vector<StepBatches> steps;
    for (int i = 0; i < 12; ++i) steps.push_back(replayed.next());
    for (size_t from = 0; from + 1 < steps.size(); ++from) {
      BatchStream resumed(index_, tiny_tokenizer(), options);
      resumed.seek(steps[from].cursor);
      EXPECT_EQ(resumed.cursor(), steps[from].cursor);
      const StepBatches next = resumed.next();
      EXPECT_EQ(next.cursor, steps[from + 1].cursor);
      EXPECT_EQ(row_ids(next), row_ids(steps[from + 1]));
      EXPECT_EQ(next.micro_batches[0].input_ids, steps[from + 1].micro_batches[0].input_ids);
    }
  }
}

TEST_F(BatchStreamTest, SeekingThrowsAwayWhatWasPrefetched) {
  BatchStream stream(index_, tiny_tokenizer(), {.batch_size = 4});
  const StepBatches first = stream.next();
  stream.next();
  stream.next();
  stream.seek({0, 0, 0});
  EXPECT_EQ(row_ids(stream.next()), row_ids(first));
  stream.seek({5, 2, 8});
  const SampleOrder order(42, 5, 23, true);
  EXPECT_THAT(row_ids(stream.next()), ElementsAre(std::to_string(order.at(8)), std::to_string(order.at(9)),
                                                  std::to_string(order.at(10)), std::to_string(order.at(11))));
  stream.seek({5, 5, 23});  // the end of an epoch is the start of the next
  EXPECT_EQ(stream.cursor(), (DataCursor{6, 0, 0}));
  EXPECT_THROW(stream.seek({0, 0, -1}), Error);
}

TEST_F(BatchStreamTest, FillsMicroBatchesUpToATokenBudget) {
  for (const bool packing : {true, false}) {
    const BatchOptions options{.batch_tokens = 150, .accumulation = 3, .pack = {.packing = packing}};
    BatchStream stream(index_, tiny_tokenizer(), options);
    for (int64_t epoch = 0; epoch < 2; ++epoch) {
      const SampleOrder order(42, epoch, 23, true);
      int64_t position = 0;
      int64_t steps = 0;
      while (position < 23) {
        const StepBatches step = stream.next();
        ++steps;
        for (const PackedBatch& batch : step.micro_batches) {
          EXPECT_LE(batch.tokens(), 150);
          for (const std::string& id : batch.row_ids) EXPECT_EQ(id, std::to_string(order.at(position++)));
          if (position == 23) continue;
          // The next row would not have fitted.
          const int64_t next = index_->train[static_cast<size_t>(order.at(position))].tokens;
          const int64_t with_next =
              packing ? batch.tokens() + next : std::max(batch.padded_length, next) * (batch.documents() + 1);
          EXPECT_GT(with_next, 150);
        }
      }
      EXPECT_EQ(steps, steps_in_epoch(*index_, options, epoch));
    }
  }
}

TEST_F(BatchStreamTest, ABudgetBelowTheLongestRowIsRefused) {
  try {
    BatchStream stream(index_, tiny_tokenizer(), {.batch_tokens = index_->longest_tokens - 1});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("training.batch_tokens: " + std::to_string(index_->longest_tokens - 1) +
                                        " is less than the " + std::to_string(index_->longest_tokens) + " tokens of "));
  }
  EXPECT_THROW(steps_in_epoch(*index_, {.batch_tokens = 1}, 0), Error);
  BatchStream stream(index_, tiny_tokenizer(), {.batch_tokens = index_->longest_tokens});
  EXPECT_GE(stream.next().micro_batches.size(), 1u);
}

TEST_F(BatchStreamTest, KeepsTheFilesOrderWithoutShuffling) {
  BatchStream stream(index_, tiny_tokenizer(), {.batch_size = 3, .shuffle = false});
  EXPECT_THAT(row_ids(stream.next()), ElementsAre("0", "1", "2"));
  EXPECT_THAT(row_ids(stream.next()), ElementsAre("3", "4", "5"));
}

TEST_F(BatchStreamTest, PrefetchesNoMoreThanItWasTold) {
  BatchStream stream(index_, tiny_tokenizer(), {.batch_size = 1, .prefetch_steps = 1});
  stream.next();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // fills the queue of one step
  file_.write("");                                              // rows not read yet are gone
  stream.next();                                                // was prefetched
  // At most one more step was under way when the file was emptied.
  EXPECT_THROW(
      {
        stream.next();
        stream.next();
      },
      Error);
}

TEST_F(BatchStreamTest, AChangedRowIsReportedAfterTheStepsBeforeItAndEveryTimeAfter) {
  const std::string text = some_rows();
  std::string changed = text;
  changed.replace(changed.find("\"id\": \"2\""), 9, "\"id\": 0002");
  file_.write(changed);
  BatchStream stream(index_, tiny_tokenizer(), {.batch_size = 1, .shuffle = false});
  EXPECT_THAT(row_ids(stream.next()), ElementsAre("0"));
  EXPECT_THAT(row_ids(stream.next()), ElementsAre("1"));
  for (int i = 0; i < 2; ++i) {
    try {
      stream.next();
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      EXPECT_THAT(error.what(), HasSubstr("rows.jsonl:3: the row is not what it was"));
    }
  }
  EXPECT_EQ(stream.cursor(), (DataCursor{0, 2, 2}));
  file_.write(text);
  stream.seek(stream.cursor());
  EXPECT_THAT(row_ids(stream.next()), ElementsAre("2"));
}

TEST_F(BatchStreamTest, EndsItsThreadAtAnyMoment) {
  for (int i = 0; i < 200; ++i) {
    BatchStream stream(index_, tiny_tokenizer(), {.batch_size = 2, .prefetch_steps = i % 3});
    for (int n = 0; n < i % 5; ++n) stream.next();
    if (i % 7 == 0) stream.seek({1, 0, 0});
  }
}

TEST_F(BatchStreamTest, MeasuresTheTimeSpentWaiting) {
  BatchStream stream(index_, tiny_tokenizer(), {});
  EXPECT_EQ(stream.waited_seconds(), 0);
  stream.next();
  EXPECT_GT(stream.waited_seconds(), 0);
}

TEST_F(BatchStreamTest, EvaluationGivesRowsInFileOrderAndRewinds) {
  const std::vector<IndexedRow> rows(index_->train.begin(), index_->train.begin() + 5);
  EvaluationStream stream(index_, rows, tiny_tokenizer(), {.batch_size = 2, .accumulation = 7});
  for (int round = 0; round < 2; ++round) {
    std::vector<std::vector<std::string>> ids;
    while (const auto batch = stream.next()) ids.push_back(batch->row_ids);
    EXPECT_THAT(ids, ElementsAre(ElementsAre("0", "1"), ElementsAre("2", "3"), ElementsAre("4")));
    EXPECT_EQ(stream.next(), nullptr);
    stream.rewind();
  }
}

TEST_F(BatchStreamTest, EvaluationKeepsTheTokenBudget) {
  EvaluationStream stream(index_, index_->train, tiny_tokenizer(), {.batch_tokens = 150});
  int64_t documents = 0;
  while (const auto batch = stream.next()) {
    EXPECT_LE(batch->tokens(), 150);
    documents += batch->documents();
  }
  EXPECT_EQ(documents, 23);
  EXPECT_THROW(EvaluationStream(index_, index_->train, tiny_tokenizer(), {.batch_tokens = 3}), Error);
}

}  // namespace
}  // namespace gemma_sft
