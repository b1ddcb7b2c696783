#include "model/cpu_memory.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

namespace gemma_sft {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

at::Tensor bytes(int64_t count) { return at::empty({count}, at::TensorOptions().dtype(at::kByte)); }

// A process of its own: the allocator is the whole process's.
class CpuMemoryTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { keep_large_blocks(); }
};

TEST_F(CpuMemoryTest, the_next_tensor_of_a_size_gets_the_block_that_the_last_one_left) {
  at::Tensor first = bytes(5 * kMiB + 7);
  const void* place = first.const_data_ptr();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(place) % (2 * kMiB), 0u);
  first.reset();
  EXPECT_GE(kept_memory().kept, 5 * kMiB);
  EXPECT_EQ(bytes(5 * kMiB).const_data_ptr(), place);
}

TEST_F(CpuMemoryTest, a_block_does_not_serve_a_tensor_of_a_much_smaller_size) {
  at::Tensor large = bytes(16 * kMiB);
  const void* place = large.const_data_ptr();
  large.reset();
  EXPECT_NE(bytes(8 * kMiB).const_data_ptr(), place);
}

TEST_F(CpuMemoryTest, small_tensors_are_not_its_business) {
  const KeptMemory before = kept_memory();
  const at::Tensor small = bytes(kMiB / 2);
  EXPECT_EQ(kept_memory().in_use, before.in_use);
}

TEST_F(CpuMemoryTest, tensors_in_use_never_share_memory_and_little_is_kept_beside_them) {
  constexpr uint32_t kSeed = 7;
  std::mt19937 random(kSeed);
  struct Owned {
    at::Tensor tensor;
    uint8_t mark;
  };
  std::vector<Owned> owned;
  int64_t served_from_kept = 0;
  for (int round = 0; round < 3000; ++round) {
    if (owned.size() < 12 && random() % 2 == 0) {
      const KeptMemory before = kept_memory();
      const int64_t size = kMiB + static_cast<int64_t>(random() % static_cast<uint32_t>(6 * kMiB));
      const auto mark = static_cast<uint8_t>(random());
      owned.push_back({bytes(size), mark});
      served_from_kept += kept_memory().kept < before.kept ? 1 : 0;
      auto* data = owned.back().tensor.data_ptr<uint8_t>();
      for (int64_t i = 0; i < size; i += 4096) data[i] = mark;
      data[size - 1] = mark;
    } else if (!owned.empty()) {
      const size_t which = random() % owned.size();
      const auto* data = owned[which].tensor.const_data_ptr<uint8_t>();
      const int64_t size = owned[which].tensor.numel();
      for (int64_t i = 0; i < size; i += 4096) ASSERT_EQ(data[i], owned[which].mark) << "seed " << kSeed;
      ASSERT_EQ(data[size - 1], owned[which].mark) << "seed " << kSeed;
      owned.erase(owned.begin() + static_cast<std::ptrdiff_t>(which));
    }
    const KeptMemory memory = kept_memory();
    ASSERT_LE(memory.in_use + memory.kept, memory.most_in_use + memory.most_in_use / 4) << "seed " << kSeed;
  }
  EXPECT_GT(served_from_kept, 100);
}

}  // namespace
}  // namespace gemma_sft
