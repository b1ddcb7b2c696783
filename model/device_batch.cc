#include "model/device_batch.h"

#include <ATen/ops/empty.h>

#include "configs/error.h"

namespace gemma_sft {

DeviceBatch to_device(const PackedBatch& batch, at::Device device) {
  const int64_t tokens = batch.tokens();
  if (static_cast<int64_t>(batch.targets.size()) != tokens || static_cast<int64_t>(batch.positions.size()) != tokens ||
      batch.document_offsets.empty() || batch.document_offsets.back() != tokens ||
      static_cast<int64_t>(batch.document_offsets.size()) != batch.documents() + 1) {
    throw Error(ErrorKind::kInternal, "packed batch: its vectors do not agree in length");
  }
  // One host block [ids | positions | targets | target rows], so that one copy carries it all.
  const auto on_host = at::TensorOptions().dtype(at::kLong).pinned_memory(device.is_cuda());
  at::Tensor block = at::empty({4 * tokens}, on_host);
  int64_t* out = block.data_ptr<int64_t>();
  std::copy(batch.input_ids.begin(), batch.input_ids.end(), out);
  std::copy(batch.positions.begin(), batch.positions.end(), out + tokens);
  std::copy(batch.targets.begin(), batch.targets.end(), out + 2 * tokens);
  int64_t target_tokens = 0;
  for (int64_t i = 0; i < tokens; ++i) {
    if (batch.targets[i] >= 0) out[3 * tokens + target_tokens++] = i;
  }
  block = block.narrow(0, 0, 3 * tokens + target_tokens).to(device, /*non_blocking=*/true);

  DeviceBatch result;
  result.input_ids = block.narrow(0, 0, tokens);
  result.positions = block.narrow(0, tokens, tokens);
  result.targets = block.narrow(0, 2 * tokens, tokens);
  result.target_rows = block.narrow(0, 3 * tokens, target_tokens);
  result.document_offsets = batch.document_offsets;
  result.document_lengths = batch.document_lengths;
  result.padded_length = batch.padded_length;
  result.target_tokens = target_tokens;
  return result;
}

}  // namespace gemma_sft
