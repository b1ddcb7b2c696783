// A failed `operator new` that knows how much was asked for. No torch.
#pragma once

#include <cstddef>
#include <new>

namespace gemma_sft {

// What a program that links trainer/cli/operator_new.cc throws where others throw std::bad_alloc.
struct AllocationFailure : std::bad_alloc {
  explicit AllocationFailure(size_t bytes_asked) : bytes(bytes_asked) {}
  size_t bytes;
};

}  // namespace gemma_sft
