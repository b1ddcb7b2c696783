#include "model/gpu/attention_times.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones_like.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <limits>

namespace gemma_sft {
namespace {

constexpr int kRuns = 5;
constexpr double kDifference = 1.05;

void wait_for(at::Device device) {
  if (device.is_cpu()) return;
  c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

}  // namespace

AttentionTimes time_attention(const DeviceBatch& batch, const AttentionShape& shape, c10::ScalarType dtype,
                              const AttentionOptions& options) {
  const at::AutoGradMode with_gradients(true);
  const at::Device device = batch.input_ids.device();
  const DocumentLayout layout = lay_out_documents(batch);
  const auto numbers = [&](int64_t heads) {
    const int64_t tokens = batch.input_ids.size(0);
    return at::linspace(-1, 1, tokens * heads * shape.head_dim, at::TensorOptions().device(device).dtype(dtype))
        .view({tokens, heads, shape.head_dim})
        .requires_grad_(true);
  };
  const at::Tensor query = numbers(shape.heads), key = numbers(shape.kv_heads), value = numbers(shape.kv_heads);

  const auto seconds = [&](bool by_blocks) {
    AttentionOptions way = options;
    way.by_blocks = by_blocks;
    wait_for(device);
    const auto start = std::chrono::steady_clock::now();
    const at::Tensor output = attend(query, key, value, layout, way);
    output.backward(at::ones_like(output));
    wait_for(device);
    for (const at::Tensor& input : {query, key, value}) input.mutable_grad().reset();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  constexpr double kNever = std::numeric_limits<double>::infinity();
  AttentionTimes times{kNever, kNever};
  for (int run = -1; run < kRuns; ++run) {
    const double flash = seconds(false), blocks = seconds(true);
    if (run < 0) continue;  // loads kernels
    times.flash = std::min(times.flash, flash);
    times.blocks = std::min(times.blocks, blocks);
  }
  return times;
}

bool prefers_blocks(const AttentionTimes& times) { return times.flash > kDifference * times.blocks; }

}  // namespace gemma_sft
