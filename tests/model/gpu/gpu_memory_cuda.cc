#include <cuda_runtime_api.h>

#include <stdexcept>

#include "tests/model/gpu/gpu_memory.h"

namespace gemma_sft {
namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

void* allocate(size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes));
  return memory;
}
void release(void* memory) { cudaFree(memory); }
void copy(void* to, const void* from, size_t bytes) {
  check(cudaDeviceSynchronize());
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault));
}

}  // namespace

const GpuMemory* find_gpu_memory() {
  static constexpr GpuMemory memory = {allocate, release, copy};
  return &memory;
}

}  // namespace gemma_sft
