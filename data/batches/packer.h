// Examples -> PackedBatch: joins them with document offsets (packed) or right-pads them to the longest (padded).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/batches/packed_batch.h"
#include "data/records/example.h"

namespace gemma_sft {

struct PackOptions {
  bool packing = true;
  int64_t pad_id = 0;
};

// Rows in, batch out, in order. `lines[i]` is the place of `examples[i]` in `file`. The target of position t is token
// t+1 of the same document when loss_mask[t+1] is 1, else -1. Needs at least one example.
PackedBatch pack(const std::vector<TokenizedExample>& examples, const std::vector<int64_t>& lines,
                 const std::string& file, const PackOptions& options);

}  // namespace gemma_sft
