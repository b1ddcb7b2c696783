// What model/gpu/row_functions.h and gpu_kernels_body.h need, for a CPU: the lanes of a team one after the other,
// merged in the order in which the GPU merges them.
#pragma once

#include <cmath>
#include <cstring>

#include "model/float_bits.h"
#include "model/gpu/gpu_kernels.h"

#define GEMMA_SFT_ROW inline

namespace gemma_sft {
namespace {

using std::exp;
using std::log;
using std::pow;
using std::sqrt;

template <int P>
struct Pack;

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline Bf16 narrowed(float value) { return Bf16{to_bf16_bits(value)}; }
inline float widened(Bf16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}
inline float widened(float value) { return value; }

template <typename T>
float rounded(float value);
template <>
inline float rounded<float>(float value) {
  return value;
}
template <>
inline float rounded<Bf16>(float value) {
  return widened(narrowed(value));
}

inline void put(float* to, float value) { *to = value; }
inline void put(Bf16* to, float value) { *to = narrowed(value); }

template <int P, typename T>
Pack<P> load(const T* from) {
  Pack<P> result;
  for (int k = 0; k < P; ++k) result.at[k] = widened(from[k]);
  return result;
}
template <int P, typename T>
void store(T* to, const Pack<P>& values) {
  for (int k = 0; k < P; ++k) put(to + k, values.at[k]);
}

template <int kLanes>
class Team {
 public:
  template <typename Body>
  void each(int64_t count, const Body& body) const {
    for (int64_t i = 0; i < count; ++i) body(i);
  }

  template <typename Value, typename Body, typename Merge>
  Value join(int64_t count, Value start, const Body& body, const Merge& merge) const {
    Value lanes[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = start;
      for (int64_t i = lane; i < count; i += kLanes) lanes[lane] = merge(lanes[lane], body(i));
    }
    // Lane 0 of each warp, whose partners are the lanes at these distances.
    for (int warp = 0; warp < kLanes; warp += 32) {
      for (int distance = 16; distance > 0; distance /= 2) {
        for (int lane = warp; lane < warp + distance; ++lane) lanes[lane] = merge(lanes[lane], lanes[lane + distance]);
      }
    }
    Value value = lanes[0];
    for (int warp = 32; warp < kLanes; warp += 32) value = merge(value, lanes[warp]);
    return value;
  }

  template <typename Body>
  float sum(int64_t count, const Body& body) const {
    return join(count, 0.0f, body, [](float a, float b) { return a + b; });
  }

  template <typename Body>
  auto share(const Body& body) const {
    return body();
  }
};

template <int kLanes, typename Body>
void run_rows(GpuStream, int64_t rows, const Body& body) {
  for (int64_t row = 0; row < rows; ++row) body(Team<kLanes>(), row);
}

template <int kLanes, typename Body>
void run_parts(GpuStream, int64_t parts, int64_t width, float* all_sums, const Body& body) {
  for (int64_t part = 0; part < parts; ++part) {
    float* sums = all_sums == nullptr ? nullptr : all_sums + part * width;
    for (int64_t i = 0; sums != nullptr && i < width; ++i) sums[i] = 0.0f;
    body(Team<kLanes>(), part, sums);
  }
}

template <typename Body>
void run_packs(GpuStream, int64_t count, const Body& body) {
  for (int64_t i = 0; i < count; ++i) body(i);
}

}  // namespace
}  // namespace gemma_sft
