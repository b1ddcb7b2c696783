// A PackedBatch as tensors on the training device.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "data/batches/packed_batch.h"

namespace gemma_sft {

struct DeviceBatch {
  at::Tensor input_ids;                   // [tokens] int64
  at::Tensor positions;                   // [tokens] int64
  at::Tensor targets;                     // [tokens] int64, -1: no target
  at::Tensor target_rows;                 // [target_tokens] int64: where targets >= 0, ascending
  std::vector<int64_t> document_offsets;  // [documents + 1]; in the padded layout multiples of padded_length
  std::vector<int64_t> document_lengths;  // [documents]
  int64_t padded_length = 0;
  int64_t target_tokens = 0;
};

// Built on the host, copied in one go; on CUDA the copies go through pinned memory without a host synchronisation.
DeviceBatch to_device(const PackedBatch& batch, at::Device device);

}  // namespace gemma_sft
