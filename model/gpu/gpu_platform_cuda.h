// What model/gpu/row_functions.h and gpu_kernels_body.h need, for nvcc: a lane is a thread, a team a warp or a block.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "configs/error.h"
#include "model/gpu/gpu_kernels.h"

#define GEMMA_SFT_ROW __device__ __forceinline__

namespace gemma_sft {
namespace {

template <int P>
struct Pack;

GEMMA_SFT_ROW uint32_t bits_of(float value) { return __float_as_uint(value); }
GEMMA_SFT_ROW Bf16 narrowed(float value) { return Bf16{__bfloat16_as_ushort(__float2bfloat16_rn(value))}; }
GEMMA_SFT_ROW float widened(Bf16 value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }
GEMMA_SFT_ROW float widened(float value) { return value; }

template <typename T>
GEMMA_SFT_ROW float rounded(float value);
template <>
GEMMA_SFT_ROW float rounded<float>(float value) {
  return value;
}
template <>
GEMMA_SFT_ROW float rounded<Bf16>(float value) {
  return widened(narrowed(value));
}

GEMMA_SFT_ROW void put(float* to, float value) { *to = value; }
GEMMA_SFT_ROW void put(Bf16* to, float value) { *to = narrowed(value); }

// 16 bytes at once, or 32 where a pack of bf16 stands beside fp32 values.
template <typename T, int P>
struct alignas(P * sizeof(T) > 16 ? 16 : P * sizeof(T)) Stored {
  T at[P];
};

template <int P, typename T>
GEMMA_SFT_ROW Pack<P> load(const T* from) {
  const Stored<T, P> stored = *reinterpret_cast<const Stored<T, P>*>(from);
  Pack<P> result;
  for (int k = 0; k < P; ++k) result.at[k] = widened(stored.at[k]);
  return result;
}

template <int P, typename T>
GEMMA_SFT_ROW void store(T* to, const Pack<P>& values) {
  Stored<T, P> stored;
  for (int k = 0; k < P; ++k) put(&stored.at[k], values.at[k]);
  *reinterpret_cast<Stored<T, P>*>(to) = stored;
}

// kLanes of 32: a warp, several of them in a block. More: a whole block.
template <int kLanes>
class Team {
 public:
  template <typename Body>
  GEMMA_SFT_ROW void each(int64_t count, const Body& body) const {
    for (int64_t i = threadIdx.x; i < count; i += kLanes) body(i);
  }

  template <typename Value, typename Body, typename Merge>
  GEMMA_SFT_ROW Value join(int64_t count, Value start, const Body& body, const Merge& merge) const {
    Value value = start;
    for (int64_t i = threadIdx.x; i < count; i += kLanes) value = merge(value, body(i));
    for (int distance = 16; distance > 0; distance /= 2) value = merge(value, from_lane_across(value, distance));
    if constexpr (kLanes > 32) {
      __shared__ Value of_warps[kLanes / 32];
      __syncthreads();  // what an earlier call left here has been read
      if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
      __syncthreads();
      value = of_warps[0];
      for (int warp = 1; warp < kLanes / 32; ++warp) value = merge(value, of_warps[warp]);
    } else {
      __syncwarp();
    }
    return value;
  }

  template <typename Body>
  GEMMA_SFT_ROW float sum(int64_t count, const Body& body) const {
    return join(count, 0.0f, body, [](float a, float b) { return a + b; });
  }

  // Blocks only: a warp would need a place of its own in shared memory.
  template <typename Body>
  GEMMA_SFT_ROW auto share(const Body& body) const {
    static_assert(kLanes > 32);
    __shared__ decltype(body()) shared;
    __syncthreads();
    if (threadIdx.x == 0) shared = body();
    __syncthreads();
    return shared;
  }

 private:
  template <typename Value>
  GEMMA_SFT_ROW static Value from_lane_across(const Value& value, int distance) {
    static_assert(sizeof(Value) % sizeof(int) == 0);
    constexpr int kWords = sizeof(Value) / sizeof(int);
    union Words {
      Value value;
      int word[kWords];
      __device__ Words() {}
    } words;
    words.value = value;
    for (int i = 0; i < kWords; ++i) words.word[i] = __shfl_xor_sync(0xffffffffu, words.word[i], distance);
    return words.value;
  }
};

constexpr int kWarpsPerBlock = 8;
template <int kLanes>
constexpr int kTeamsPerBlock = kLanes == 32 ? kWarpsPerBlock : 1;

template <int kLanes, typename Body>
__global__ void __launch_bounds__(kLanes* kTeamsPerBlock<kLanes>) rows_kernel(int64_t rows, Body body) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTeamsPerBlock<kLanes> + threadIdx.y;
  if (row < rows) body(Team<kLanes>(), row);
}

template <int kLanes, typename Body>
__global__ void __launch_bounds__(kLanes* kTeamsPerBlock<kLanes>)
    parts_kernel(int64_t parts, int64_t width, float* all_sums, bool in_shared_memory, Body body) {
  extern __shared__ float shared_sums[];
  const int64_t part = static_cast<int64_t>(blockIdx.x) * kTeamsPerBlock<kLanes> + threadIdx.y;
  if (part >= parts) return;
  const Team<kLanes> team;
  if (all_sums == nullptr) {
    body(team, part, static_cast<float*>(nullptr));
    return;
  }
  float* kept = all_sums + part * width;
  float* sums = in_shared_memory ? shared_sums + threadIdx.y * width : kept;
  // A lane adds to other columns than it clears and copies, hence the barriers that a sum of nothing makes.
  team.each(width, [&](int64_t i) { sums[i] = 0.0f; });
  team.sum(0, [](int64_t) { return 0.0f; });
  body(team, part, sums);
  team.sum(0, [](int64_t) { return 0.0f; });
  if (in_shared_memory) team.each(width, [&](int64_t i) { kept[i] = sums[i]; });
}

template <typename Body>
__global__ void __launch_bounds__(256) packs_kernel(int64_t count, Body body) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i < count) body(i);
}

inline void check_launch() {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return;
  const std::string message = std::string("a GPU kernel could not be started: ") + cudaGetErrorString(error);
  // The first launch of a kernel loads its code, for which there may be no room. "out of memory", as CUDA says then, is
  // what trainer/training_failure.cc explains; an Error would be the last word.
  if (error == cudaErrorMemoryAllocation) throw std::runtime_error(message);
  throw Error(ErrorKind::kInternal, message);
}

inline unsigned blocks_for(int64_t count, int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

template <int kLanes, typename Body>
void run_rows(GpuStream stream, int64_t rows, const Body& body) {
  if (rows == 0) return;
  rows_kernel<kLanes><<<blocks_for(rows, kTeamsPerBlock<kLanes>), dim3(kLanes, kTeamsPerBlock<kLanes>), 0,
                        static_cast<cudaStream_t>(stream)>>>(rows, body);
  check_launch();
}

// body(team, part, sums): sums [width] starts at zero and is kept in row `part` of all_sums; null where that is null.
template <int kLanes, typename Body>
void run_parts(GpuStream stream, int64_t parts, int64_t width, float* all_sums, const Body& body) {
  if (parts == 0) return;
  constexpr size_t kSharedBytes = 48 << 10;  // what every kernel may have without asking
  const size_t bytes = static_cast<size_t>(width) * kTeamsPerBlock<kLanes> * sizeof(float);
  const bool fits = all_sums != nullptr && bytes <= kSharedBytes - 1024;
  parts_kernel<kLanes><<<blocks_for(parts, kTeamsPerBlock<kLanes>), dim3(kLanes, kTeamsPerBlock<kLanes>),
                         fits ? bytes : 0, static_cast<cudaStream_t>(stream)>>>(parts, width, all_sums, fits, body);
  check_launch();
}

template <typename Body>
void run_packs(GpuStream stream, int64_t count, const Body& body) {
  if (count == 0) return;
  packs_kernel<<<blocks_for(count, 256), 256, 0, static_cast<cudaStream_t>(stream)>>>(count, body);
  check_launch();
}

}  // namespace
}  // namespace gemma_sft
