// How long attention takes on a device: what decides where it could go through flash attention as well as by blocks.
#pragma once

#include <c10/core/ScalarType.h>

#include "model/attention.h"

namespace gemma_sft {

struct AttentionTimes {
  double flash = 0, blocks = 0;  // seconds: forward and backward pass of one layer
};

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
};

// Times both over the documents of a batch, in turns, and gives the fastest of each; where flash attention is not
// possible (find_flash_obstacle), both go by blocks. Draws no random numbers, keeps no memory, waits for the device.
AttentionTimes time_attention(const DeviceBatch& batch, const AttentionShape& shape, c10::ScalarType dtype,
                              const AttentionOptions& options);

// Flash attention, unless it is the slower one by more than what two measurements differ by.
bool prefers_blocks(const AttentionTimes& times);

}  // namespace gemma_sft
