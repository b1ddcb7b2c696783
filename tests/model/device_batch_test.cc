#include "model/device_batch.h"

#include <gtest/gtest.h>

#include "configs/error.h"
#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

std::vector<int64_t> values(const at::Tensor& tensor) {
  const int64_t* first = tensor.const_data_ptr<int64_t>();
  return {first, first + tensor.numel()};
}

TEST(DeviceBatch, HoldsThePackedBatchAsTensors) {
  const PackedBatch packed = pack({{5, 6, 7}, {8, 9}});
  const DeviceBatch batch = to_device(packed, at::kCPU);
  EXPECT_EQ(values(batch.input_ids), (std::vector<int64_t>{5, 6, 7, 8, 9}));
  EXPECT_EQ(values(batch.positions), (std::vector<int64_t>{0, 1, 2, 0, 1}));
  EXPECT_EQ(values(batch.targets), (std::vector<int64_t>{6, 7, -1, 9, -1}));
  EXPECT_EQ(values(batch.target_rows), (std::vector<int64_t>{0, 1, 3}));
  EXPECT_EQ(batch.target_tokens, 3);
  EXPECT_EQ(batch.document_offsets, (std::vector<int64_t>{0, 3, 5}));
  EXPECT_EQ(batch.document_lengths, (std::vector<int64_t>{3, 2}));
}

TEST(DeviceBatch, MayHaveNoTarget) {
  PackedBatch packed = pack({{5}, {6}});
  EXPECT_EQ(to_device(packed, at::kCPU).target_rows.numel(), 0);
}

TEST(DeviceBatch, RefusesVectorsThatDoNotAgree) {
  PackedBatch packed = pack({{5, 6, 7}});
  packed.positions.pop_back();
  EXPECT_THROW(to_device(packed, at::kCPU), Error);
}

}  // namespace
}  // namespace gemma_sft
