#include "model/cpu_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>

namespace gemma_sft {
namespace {

constexpr size_t kLarge = size_t{1} << 20;     // smaller ones are left to malloc, which keeps them itself
constexpr size_t kGranule = size_t{64} << 10;  // sizes are rounded up to it, so that similar ones fit each other
constexpr size_t kHugePage = size_t{2} << 20;  // blocks begin at such an address
constexpr size_t kMostWaste = 8;               // a kept block serves a request of at least 7/8 of its size
constexpr size_t kSlack = 4;                   // kept and used blocks together: at most 5/4 of the most that was in use
constexpr uint8_t kPriority = 100;             // above LibTorch's own

class LargeBlocks {
 public:
  void* take(size_t bytes) {
    const size_t size = (bytes + kGranule - 1) / kGranule * kGranule;
    const std::lock_guard lock(mutex_);
    void* block = nullptr;
    const auto fitting = kept_.lower_bound(size);
    if (fitting != kept_.end() && fitting->first - size <= fitting->first / kMostWaste) {
      block = fitting->second.block;
      sizes_[block] = fitting->first;
      account(fitting->first);
      kept_bytes_ -= fitting->first;
      ages_.erase(fitting->second.age);
      kept_.erase(fitting);
      return block;
    }
    // The oldest blocks go where they would make the process larger than it has to be.
    const size_t most = std::max(most_in_use_, in_use_ + size);
    while (kept_bytes_ > 0 && in_use_ + kept_bytes_ + size > most + most / kSlack) drop_oldest();
    block = map(size);
    while (block == nullptr && kept_bytes_ > 0) {
      drop_oldest();
      block = map(size);
    }
    if (block == nullptr) return nullptr;
    sizes_[block] = size;
    account(size);
    return block;
  }

  // False: not one of ours.
  bool give_back(void* block) {
    const std::lock_guard lock(mutex_);
    const auto found = sizes_.find(block);
    if (found == sizes_.end()) return false;
    const size_t size = found->second;
    sizes_.erase(found);
    in_use_ -= size;
    const auto place = kept_.emplace(size, Kept{block, ages_.end()});
    place->second.age = ages_.insert(ages_.end(), place);
    kept_bytes_ += size;
    return true;
  }

  KeptMemory report() {
    const std::lock_guard lock(mutex_);
    return {static_cast<int64_t>(in_use_), static_cast<int64_t>(kept_bytes_), static_cast<int64_t>(most_in_use_)};
  }

 private:
  struct Kept;
  using BySize = std::multimap<size_t, Kept>;
  using ByAge = std::list<BySize::iterator>;  // the oldest first
  struct Kept {
    void* block;
    ByAge::iterator age;
  };

  static void* map(size_t size) {
    // Mapped larger, and what lies around the aligned part unmapped again.
    char* start = static_cast<char*>(
        ::mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (start == MAP_FAILED) return nullptr;
    const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
    if (before > 0) ::munmap(start, before);
    if (before < kHugePage) ::munmap(start + before + size, kHugePage - before);
    if (size >= kHugePage) ::madvise(start + before, size, MADV_HUGEPAGE);  // where there are none it just fails
    return start + before;
  }

  void drop_oldest() {
    const BySize::iterator oldest = ages_.front();
    ::munmap(oldest->second.block, oldest->first);
    kept_bytes_ -= oldest->first;
    ages_.pop_front();
    kept_.erase(oldest);
  }

  void account(size_t size) {
    in_use_ += size;
    most_in_use_ = std::max(most_in_use_, in_use_);
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> sizes_;  // of the blocks in use
  BySize kept_;
  ByAge ages_;
  size_t in_use_ = 0, kept_bytes_ = 0, most_in_use_ = 0;
};

// Never destroyed: tensors may outlive everything.
LargeBlocks& large_blocks() {
  static auto* const blocks = new LargeBlocks;
  return *blocks;
}

void free_large(void* block) { large_blocks().give_back(block); }

void free_any(void* data) {
  if (!large_blocks().give_back(data)) c10::free_cpu(data);
}

class KeepingAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes < kLarge) {
      void* data = c10::alloc_cpu(bytes);
      return {data, data, &c10::free_cpu, c10::Device(c10::kCPU)};
    }
    void* block = large_blocks().take(bytes);
    // LibTorch's own says what is missing, in the words that with_memory_errors_explained knows.
    if (block == nullptr) return c10::GetDefaultCPUAllocator()->allocate(bytes);
    return {block, block, &free_large, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_any; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

}  // namespace

void keep_large_blocks() {
  static KeepingAllocator allocator;
  c10::SetCPUAllocator(&allocator, kPriority);
}

KeptMemory kept_memory() { return large_blocks().report(); }

}  // namespace gemma_sft
