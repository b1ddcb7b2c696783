// The order in which the rows of an epoch are visited: a pure function of (seed, epoch, position), with no memory at
// all.
//
// A keyed Feistel permutation over the next power of four with cycle walking (Black & Rogaway, "Ciphers with Arbitrary
// Finite Domains", 2002): any position can be asked for directly, so resume needs no replay.
#pragma once

#include <array>
#include <cstdint>

namespace gemma_sft {

// Immutable; any thread.
class SampleOrder {
 public:
  // `rows` >= 1. Without `shuffle` the order is that of the file.
  SampleOrder(uint64_t seed, int64_t epoch, int64_t rows, bool shuffle);
  int64_t at(int64_t position) const;  // row index in [0, rows); position in [0, rows)

 private:
  std::array<uint64_t, 6> keys_;  // one per Feistel round
  int64_t rows_;
  int half_bits_;
  bool shuffle_;
};

}  // namespace gemma_sft
