// Arrays for the tests of the GPU's kernels: in host memory for the host's table, on the GPU for CUDA's. Twin files:
// gpu_memory_cuda.cc, and gpu_memory_none.cc in a build without CUDA.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

namespace gemma_sft {

struct GpuMemory {
  void* (*allocate)(size_t bytes);
  void (*release)(void*);
  void (*copy)(void* to, const void* from, size_t bytes);  // in either direction; waits for the kernels before
};
const GpuMemory* find_gpu_memory();  // null without CUDA
const GpuMemory& host_memory();

// `guard` values before and behind are checked when it is read back: a kernel that writes past its array is found.
template <typename T>
class TestArray {
 public:
  TestArray(const GpuMemory& memory, const std::vector<T>& values, size_t offset = 0)
      : memory_(memory), count_(values.size()), offset_(offset) {
    std::vector<T> all(count_ + 2 * kGuard + offset_);
    std::memset(static_cast<void*>(all.data()), 0x5a, all.size() * sizeof(T));
    if (count_ > 0) std::memcpy(all.data() + kGuard + offset_, values.data(), count_ * sizeof(T));
    data_ = static_cast<T*>(memory_.allocate(all.size() * sizeof(T)));
    memory_.copy(data_, all.data(), all.size() * sizeof(T));
  }
  ~TestArray() { memory_.release(data_); }
  TestArray(const TestArray&) = delete;
  TestArray& operator=(const TestArray&) = delete;

  T* get() const { return data_ + kGuard + offset_; }
  std::vector<T> read() const {
    std::vector<T> values(count_);
    if (count_ > 0) memory_.copy(values.data(), get(), count_ * sizeof(T));
    return values;
  }
  bool guards_are_whole() const {
    std::vector<unsigned char> all((count_ + 2 * kGuard + offset_) * sizeof(T));
    memory_.copy(all.data(), data_, all.size());
    const size_t begin = (kGuard + offset_) * sizeof(T), end = begin + count_ * sizeof(T);
    for (size_t i = 0; i < all.size(); ++i) {
      if ((i < begin || i >= end) && all[i] != 0x5a) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 64;  // a multiple of 16 bytes for every T
  const GpuMemory& memory_;
  size_t count_, offset_;
  T* data_ = nullptr;
};

}  // namespace gemma_sft
