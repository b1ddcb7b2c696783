#include "data/batches/sample_order.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "configs/error.h"

namespace gemma_sft {
namespace {

std::vector<int64_t> order_of(uint64_t seed, int64_t epoch, int64_t rows, bool shuffle = true) {
  const SampleOrder order(seed, epoch, rows, shuffle);
  std::vector<int64_t> result;
  for (int64_t position = 0; position < rows; ++position) result.push_back(order.at(position));
  return result;
}

TEST(SampleOrder, VisitsEveryRowOnceForEveryNumberOfRowsUpTo2000) {
  for (int64_t rows = 1; rows <= 2000; ++rows) {
    std::vector<bool> seen(static_cast<size_t>(rows), false);
    const SampleOrder order(42, rows % 5, rows, true);
    for (int64_t position = 0; position < rows; ++position) {
      const int64_t row = order.at(position);
      ASSERT_GE(row, 0);
      ASSERT_LT(row, rows);
      ASSERT_FALSE(seen[static_cast<size_t>(row)]) << rows;
      seen[static_cast<size_t>(row)] = true;
    }
  }
}

TEST(SampleOrder, IsAPureFunctionOfSeedEpochAndPosition) {
  EXPECT_EQ(order_of(42, 3, 550), order_of(42, 3, 550));
  std::set<std::vector<int64_t>> orders;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    for (int64_t epoch = 0; epoch < 10; ++epoch) orders.insert(order_of(seed, epoch, 50));
  }
  EXPECT_EQ(orders.size(), 100u);
}

// A resume on another build must see the same rows: these numbers may never change.
TEST(SampleOrder, HasTheDocumentedOrder) {
  EXPECT_EQ(order_of(42, 0, 10), (std::vector<int64_t>{3, 1, 4, 8, 2, 6, 5, 7, 0, 9}));
  EXPECT_EQ(order_of(42, 1, 10), (std::vector<int64_t>{5, 9, 6, 1, 2, 7, 4, 8, 0, 3}));
  EXPECT_EQ(SampleOrder(7, 2, 1'000'000'000'000, true).at(123'456'789), 43533754133);
}

TEST(SampleOrder, IsTheFilesWithoutShuffling) {
  EXPECT_EQ(order_of(42, 3, 5, false), (std::vector<int64_t>{0, 1, 2, 3, 4}));
}

// Each row must be as likely at each position. 10 x 10 cells of 2,000 expected: the sum of squares is chi-squared with
// 81 degrees of freedom (mean 81, deviation 12.7); 145 is five deviations away.
TEST(SampleOrder, PutsEachRowAtEachPositionAlike) {
  constexpr int kRows = 10;
  constexpr int kOrders = 20'000;
  double counts[kRows][kRows] = {};
  for (int seed = 0; seed < kOrders; ++seed) {
    const SampleOrder order(static_cast<uint64_t>(seed), 0, kRows, true);
    for (int position = 0; position < kRows; ++position) counts[position][order.at(position)] += 1;
  }
  double chi_squared = 0;
  const double expected = static_cast<double>(kOrders) / kRows;
  for (const auto& row : counts) {
    for (const double count : row) chi_squared += (count - expected) * (count - expected) / expected;
  }
  EXPECT_LT(chi_squared, 145);
}

TEST(SampleOrder, RefusesWhatIsOutside) {
  const SampleOrder order(1, 0, 3, true);
  EXPECT_THROW(order.at(-1), Error);
  EXPECT_THROW(order.at(3), Error);
  EXPECT_THROW(SampleOrder(1, 0, 0, true), Error);
  EXPECT_THROW(SampleOrder(1, -1, 3, true), Error);
}

}  // namespace
}  // namespace gemma_sft
