// Each of our kernels on the GPU: microseconds, bytes that must move, and the rate beside that of a plain copy on the
// same chip. Shapes are those of a Gemma-2B step of 8,192 tokens. Built in CUDA builds only; tests/gpu/run.sh runs it.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/embedding.h"
#include "model/gpu/attention_times.h"
#include "model/gpu/flash_attention.h"
#include "model/gpu/fused.h"
#include "model/gpu/fused_adamw.h"
#include "model/rotary_embedding.h"

namespace gemma_sft {
namespace {

constexpr int64_t kTokens = 8192, kWidth = 2048, kInner = 16384, kHeads = 8, kDim = 256, kVocabulary = 256'000;

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

// The median of 20 runs after 3, in microseconds. Before each the GPU copies a gigabyte: meanwhile the host launches
// the whole body, so that only the GPU's time is counted, and no input is in the cache.
double microseconds(const std::function<void()>& body) {
  const at::Tensor filler = at::empty({int64_t{1} << 30}, at::TensorOptions().device(at::kCUDA).dtype(at::kByte));
  const at::Tensor filled = at::empty_like(filler);
  const auto stream = static_cast<cudaStream_t>(fused_stream(filler));
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < 23; ++i) {
    filled.copy_(filler);
    check(cudaEventRecord(begin, stream));
    body();
    check(cudaEventRecord(end, stream));
    check(cudaEventSynchronize(end));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i >= 3) times.push_back(milliseconds);
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  std::nth_element(times.begin(), times.begin() + 10, times.end());
  return 1000.0 * static_cast<double>(times[10]);
}

double copy_rate = 0;  // bytes per microsecond, read and written

void report(const char* name, double bytes, const std::function<void()>& body) {
  const double time = microseconds(body), rate = bytes / time;
  std::printf("%-28s %10.1f us %9.1f MB %8.0f GB/s %5.0f %% of a copy\n", name, time, bytes / 1e6, rate / 1e3,
              100 * rate / copy_rate);
}

// Forward and backward through autograd; the gradients of leaves are dropped.
void report_layer(const char* name, double forward_bytes, double backward_bytes, const std::vector<at::Tensor>& leaves,
                  const std::function<at::Tensor()>& layer) {
  {
    const at::NoGradGuard no_grad;
    report((std::string(name) + " forward").c_str(), forward_bytes, [&] { layer(); });
  }
  const at::Tensor output = layer();
  const at::Tensor gradient = at::empty_like(output).normal_();
  report((std::string(name) + " backward").c_str(), backward_bytes, [&] {
    output.backward({gradient}, /*retain_graph=*/true);
    for (const at::Tensor& leaf : leaves) leaf.mutable_grad().reset();
  });
}

// Products, not bytes: four documents of 2,048 tokens in bf16, forward and backward pass, both ways where both can be.
void report_attention(const char* name, const AttentionShape& shape, const AttentionOptions& options) {
  constexpr int64_t kLength = 2048;
  DeviceBatch batch;
  batch.input_ids = at::zeros({kTokens}, at::TensorOptions().device(at::kCUDA).dtype(at::kLong));
  for (int64_t token = 0; token <= kTokens; token += kLength) batch.document_offsets.push_back(token);
  batch.document_lengths.assign(static_cast<size_t>(kTokens / kLength), kLength);
  const AttentionTimes times = time_attention(batch, shape, at::kBFloat16, options);
  // 3.5 times the forward pass's two products; of the scores, those that a query sees.
  const int64_t seen = options.window > 0 ? std::min(options.window, kLength) : kLength;
  const double scores = static_cast<double>(seen) * static_cast<double>(2 * kLength - seen + 1) / 2;
  const double flops = 3.5 * 4 * static_cast<double>(shape.heads * shape.head_dim * (kTokens / kLength)) * scores;
  const auto rate = [&](double seconds) { return flops / seconds / 1e12; };
  std::printf("attention, %-24s by blocks %8.2f ms %5.0f TFLOP/s", name, 1e3 * times.blocks, rate(times.blocks));
  const at::Tensor query = at::empty({1, shape.heads, shape.head_dim}, batch.input_ids.options().dtype(at::kBFloat16));
  if (const auto obstacle = find_flash_obstacle(query, options)) {
    std::printf("; flash: %s\n", obstacle->c_str());
  } else {
    std::printf("; flash %8.2f ms %5.0f TFLOP/s\n", 1e3 * times.flash, rate(times.flash));
  }
}

int run() {
  const auto bf16 = at::TensorOptions().device(at::kCUDA).dtype(at::kBFloat16);
  const auto fp32 = bf16.dtype(at::kFloat), ids_type = bf16.dtype(at::kLong);
  const auto leaf = [&](at::IntArrayRef sizes) { return at::randn(sizes, bf16).requires_grad_(true); };
  {
    const at::Tensor from = at::empty({int64_t{1} << 28}, fp32), to = at::empty_like(from);
    const double bytes = 2.0 * static_cast<double>(from.nbytes());
    copy_rate = bytes / microseconds([&] { at::Tensor(to).copy_(from); });
    std::printf("copy: %.0f GB/s, read and written\n", copy_rate / 1e3);
  }
  const double row = 2.0 * kTokens * kWidth;
  {
    const at::Tensor x = leaf({kTokens, kWidth}), change = leaf({kTokens, kWidth}), weight = leaf({kWidth});
    report_layer("norm", 2 * row, 3 * row, {x, weight}, [&] { return fused_rms_norm(x, weight, 1e-6); });
    report_layer("residual + norm", 4 * row, 3 * row, {x, change, weight},
                 [&] { return fused_add_rms_norm(x, change, weight, 1e-6).second; });
  }
  {
    const at::Tensor x = leaf({kTokens, kHeads, kDim}), weight = leaf({kDim});
    const RotaryTable table = rotary_table(at::arange(0, kTokens, ids_type), kDim, 10000, 1, at::kBFloat16);
    const double heads = 2.0 * kTokens * kHeads * kDim;
    report_layer("head norm + rotation", 2 * heads, 3 * heads, {x, weight},
                 [&] { return fused_norm_rotate(x, weight, 1e-6, table.cos, table.sin); });
    report_layer("rotation", 2 * heads, 2 * heads, {x},
                 [&] { return fused_norm_rotate(x, {}, 1e-6, table.cos, table.sin); });
  }
  {
    const at::Tensor gate = leaf({kTokens, kInner}), up = leaf({kTokens, kInner});
    const double inner = 2.0 * kTokens * kInner;
    report_layer("gate", 3 * inner, 5 * inner, {gate, up}, [&] { return fused_gelu_gate(gate, up); });
  }
  {
    const at::Tensor weight = leaf({kVocabulary, kWidth}), ids = at::randint(1, kVocabulary, {kTokens}, ids_type);
    weight.mutable_grad() = at::zeros(weight.sizes(), bf16);
    report_layer("embedding", 2 * row, 3 * row, {}, [&] { return fused_embed(ids, weight, 45.25, at::kBFloat16, 0); });
  }
  {
    at::Tensor logits = at::randn({2048, kVocabulary}, bf16);
    const at::Tensor targets = at::randint(kVocabulary, {2048}, ids_type);
    report("loss and its gradient", 3.0 * static_cast<double>(logits.nbytes()),
           [&] { fused_cross_entropy(logits, targets, std::nullopt, true); });
  }
  for (const auto dtype : {at::kBFloat16, at::kFloat}) {
    std::vector<AdamWTensors> tensors;
    double bytes = 0;
    const at::Tensor one = at::full({}, 1.0, fp32), zero = at::zeros({}, fp32);
    for (int i = 0; i < 16; ++i) {
      const auto make = [&] { return at::randn({kWidth, kInner}, fp32).abs_().to(dtype); };
      tensors.push_back({make(), make(), make(), make(), one, 0.01, adamw_random_key(1, 1, static_cast<size_t>(i))});
      bytes += 7.0 * static_cast<double>(tensors.back().weight.nbytes());
    }
    for (const bool stochastic : {false, true}) {
      if (stochastic && dtype == at::kFloat) continue;
      const AdamWStep step{1e-5, 0.9, 0.999, 1e-8, one, zero, stochastic};
      report(dtype == at::kFloat ? "AdamW fp32"
             : stochastic        ? "AdamW bf16, stochastic"
                                 : "AdamW bf16",
             bytes, [&] { fused_adamw(tensors, step); });
    }
  }
  report_attention("Gemma 1 2B", {8, 1, 256}, {.scale = 1.0 / 16});
  report_attention("Gemma 3 1B", {4, 1, 256}, {.scale = 1.0 / 16});
  report_attention("Gemma 3 1B, window 512", {4, 1, 256}, {.scale = 1.0 / 16, .window = 512});
  report_attention("Gemma 2 2B", {8, 4, 256}, {.scale = 1.0 / 16, .softcap = 50.0});
  return 0;
}

}  // namespace
}  // namespace gemma_sft

int main() {
  try {
    return gemma_sft::run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_benchmark: %s\n", error.what());
    return 1;
  }
}
