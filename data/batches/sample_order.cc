#include "data/batches/sample_order.h"

#include <fmt/format.h>

#include "configs/error.h"

namespace gemma_sft {

namespace {

// The output function of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;

}  // namespace

SampleOrder::SampleOrder(uint64_t seed, int64_t epoch, int64_t rows, bool shuffle)
    : rows_(rows), half_bits_(1), shuffle_(shuffle) {
  if (rows < 1 || epoch < 0) {
    throw Error(ErrorKind::kInternal, fmt::format("an order of {} rows in epoch {} was asked for", rows, epoch));
  }
  while (half_bits_ < 31 && (int64_t{1} << (2 * half_bits_)) < rows) ++half_bits_;
  // Seed and epoch go through the mixer one after the other: (seed 1, epoch 0) shares nothing with (seed 0, epoch 1).
  uint64_t state = mix(mix(seed + kGolden) ^ static_cast<uint64_t>(epoch));
  for (uint64_t& key : keys_) key = mix(state += kGolden);
}

int64_t SampleOrder::at(int64_t position) const {
  if (position < 0 || position >= rows_) {
    throw Error(ErrorKind::kInternal, fmt::format("position {} of an order of {} rows was asked for", position, rows_));
  }
  if (!shuffle_) return position;
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  auto value = static_cast<uint64_t>(position);
  do {  // walk the cycle until it is back inside; at most four tries on average
    uint64_t left = value >> half_bits_;
    uint64_t right = value & mask;
    for (const uint64_t key : keys_) {
      const uint64_t next = left ^ (mix(key ^ right) & mask);
      left = right;
      right = next;
    }
    value = left << half_bits_ | right;
  } while (value >= static_cast<uint64_t>(rows_));
  return static_cast<int64_t>(value);
}

}  // namespace gemma_sft
