// Counts the bytes that LibTorch holds on the CPU.
#pragma once

#include <cstdint>
#include <memory>

namespace gemma_sft {

// Takes the place of LibTorch's CPU allocator for as long as it lives; tensors may outlive it. One at a time.
class CountingAllocator {
 public:
  CountingAllocator();
  ~CountingAllocator();
  CountingAllocator(const CountingAllocator&) = delete;
  CountingAllocator& operator=(const CountingAllocator&) = delete;

  int64_t held() const;  // bytes allocated through it and not yet freed
  int64_t peak() const;  // the most since the last reset
  void reset_peak();
};

}  // namespace gemma_sft
