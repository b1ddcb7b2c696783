#include "tests/model/counting_allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

namespace gemma_sft {
namespace {

std::atomic<int64_t> bytes_held{0}, bytes_peak{0};

constexpr size_t kAlignment = 64;

int64_t size_of(void* start) { return static_cast<int64_t>(malloc_usable_size(start)); }

void release(void* start) {
  if (start == nullptr) return;
  bytes_held -= size_of(start);
  std::free(start);
}

class Counter final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* start = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
    if (start == nullptr) throw std::bad_alloc();
    const int64_t now = bytes_held += size_of(start);
    int64_t peak = bytes_peak;
    while (now > peak && !bytes_peak.compare_exchange_weak(peak, now)) {
    }
    return {start, start, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

Counter counter;
c10::Allocator* before = nullptr;

}  // namespace

CountingAllocator::CountingAllocator() {
  before = c10::GetCPUAllocator();
  c10::SetCPUAllocator(&counter, 1);
  reset_peak();
}

CountingAllocator::~CountingAllocator() { c10::SetCPUAllocator(before, 1); }

int64_t CountingAllocator::held() const { return bytes_held; }
int64_t CountingAllocator::peak() const { return bytes_peak; }
void CountingAllocator::reset_peak() { bytes_peak = bytes_held.load(); }

}  // namespace gemma_sft
