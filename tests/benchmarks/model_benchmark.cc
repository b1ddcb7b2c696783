// The model alone: matrix products, attention, the loss head, forward + loss + backward of whole models. Items are
// tokens; "flops" is the rate of the operations that the mathematics asks for (no recomputation counted).
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <benchmark/benchmark.h>

#include <random>

#include "model/blockwise_attention.h"
#include "model/chunked_cross_entropy.h"
#include "model/gemma.h"
#include "model/matrix_product.h"

namespace gemma_sft {
namespace {

#define MODEL_BENCHMARK(function, name, ...) \
  BENCHMARK_CAPTURE(function, name, __VA_ARGS__)->Unit(benchmark::kMillisecond)->UseRealTime()

at::TensorOptions of(at::ScalarType dtype) { return at::TensorOptions().dtype(dtype); }

void report(benchmark::State& state, double tokens, double flops) {
  state.SetItemsProcessed(static_cast<int64_t>(static_cast<double>(state.iterations()) * tokens));
  state.counters["flops"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

// The peak that everything else is measured against, and LibTorch's own product beside it.
void product_of_2048(benchmark::State& state, at::ScalarType dtype, bool ours) {
  const at::NoGradGuard no_grad;
  const at::Tensor a = at::randn({2048, 2048}).to(dtype), b = at::randn({2048, 2048}).to(dtype).t();
  for (auto _ : state) benchmark::DoNotOptimize(ours ? product(a, b) : at::mm(a, b));
  report(state, 2048, 2.0 * 2048 * 2048 * 2048);
}
MODEL_BENCHMARK(product_of_2048, fp32_ours, at::kFloat, true);
MODEL_BENCHMARK(product_of_2048, fp32_libtorch, at::kFloat, false);
MODEL_BENCHMARK(product_of_2048, bf16_ours, at::kBFloat16, true);
MODEL_BENCHMARK(product_of_2048, bf16_libtorch, at::kBFloat16, false);

// Forward and backward of one layer's attention: our blocks against LibTorch's fused kernel for the CPU.
void attention(benchmark::State& state, at::ScalarType dtype, bool ours, int64_t documents, int64_t length,
               int64_t dim) {
  constexpr int64_t kHeads = 4;
  const double scale = 0.1;
  const at::Tensor query = at::randn({documents, length, kHeads, dim}).to(dtype).requires_grad_(true);
  const at::Tensor key = at::randn({documents, length, 1, dim}).to(dtype).requires_grad_(true);
  const at::Tensor value = at::randn({documents, length, 1, dim}).to(dtype).requires_grad_(true);
  const at::Tensor gradient = at::randn({documents, length, kHeads, dim}).to(dtype);
  for (auto _ : state) {
    at::Tensor output;
    if (ours) {
      output = blockwise_attention(query, key, value, {.scale = scale});
    } else {
      output =
          at::scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), {}, 0.0,
                                           /*is_causal=*/true, scale, /*enable_gqa=*/true)
              .transpose(1, 2);
    }
    output.backward(gradient);
    for (const at::Tensor& input : {query, key, value}) input.mutable_grad().reset();
  }
  // Two products forward, four backward, half of the scores visible.
  report(state, static_cast<double>(documents * length),
         6.0 * static_cast<double>(documents * kHeads * length * length * dim));
}
MODEL_BENCHMARK(attention, one_of_512_fp32_ours, at::kFloat, true, 1, 512, 256);
MODEL_BENCHMARK(attention, one_of_512_fp32_fused, at::kFloat, false, 1, 512, 256);
MODEL_BENCHMARK(attention, one_of_512_bf16_ours, at::kBFloat16, true, 1, 512, 256);
MODEL_BENCHMARK(attention, one_of_512_bf16_fused, at::kBFloat16, false, 1, 512, 256);
MODEL_BENCHMARK(attention, 32_of_30_fp32_ours, at::kFloat, true, 32, 30, 32);
MODEL_BENCHMARK(attention, 32_of_30_fp32_fused, at::kFloat, false, 32, 30, 32);
MODEL_BENCHMARK(attention, 32_of_30_bf16_ours, at::kBFloat16, true, 32, 30, 32);
MODEL_BENCHMARK(attention, 32_of_30_bf16_fused, at::kBFloat16, false, 32, 30, 32);

void loss_head(benchmark::State& state, at::ScalarType compute, at::ScalarType storage) {
  constexpr int64_t kTokens = 512, kVocabulary = 262'144, kWidth = 640;
  const at::Tensor hidden = at::randn({kTokens, kWidth}).to(compute).requires_grad_(true);
  const at::Tensor weight = at::randn({kVocabulary, kWidth}).mul_(0.02).to(storage).requires_grad_(true);
  const at::Tensor places = at::arange(kTokens, of(at::kLong));
  const at::Tensor targets = at::randint(kVocabulary, {kTokens}, of(at::kLong));
  for (auto _ : state) {
    chunked_cross_entropy(hidden, weight, places, targets, {.backward_starts_here = true}).backward();
    hidden.mutable_grad().reset();
    weight.mutable_grad().reset();
  }
  report(state, kTokens, 6.0 * kTokens * kVocabulary * kWidth);
}
MODEL_BENCHMARK(loss_head, fp32, at::kFloat, at::kFloat);
MODEL_BENCHMARK(loss_head, bf16_mixed, at::kBFloat16, at::kFloat);
MODEL_BENCHMARK(loss_head, bf16, at::kBFloat16, at::kBFloat16);

struct Shape {
  int64_t vocabulary, width, intermediate, layers, heads, head_dim;
  std::vector<int64_t> document_lengths;
};

// Like what the demo trains, and Gemma 3 270M with a small and with its own vocabulary.
Shape demo_shape() {
  std::mt19937 random(1);
  Shape shape{2048, 128, 512, 6, 4, 32, {}};
  for (int i = 0; i < 32; ++i) shape.document_lengths.push_back(20 + static_cast<int64_t>(random() % 21));
  return shape;
}
Shape gemma_270m(int64_t vocabulary) { return {vocabulary, 640, 2048, 18, 4, 256, {512}}; }

GemmaConfig config_of(const Shape& shape) {
  GemmaConfig config;
  config.vocab_size = shape.vocabulary;
  config.hidden_size = shape.width;
  config.intermediate_size = shape.intermediate;
  config.num_layers = shape.layers;
  config.num_heads = shape.heads;
  config.num_kv_heads = 1;
  config.head_dim = shape.head_dim;
  config.query_scale = 1.0 / 16;
  config.sliding_window = 512;
  config.qk_norm = config.sandwich_norms = true;
  for (int64_t i = 0; i < shape.layers; ++i) {
    config.layer_kinds.push_back(i % 6 == 5 ? LayerKind::kGlobal : LayerKind::kSliding);
  }
  return config;
}

PackedBatch batch_of(const Shape& shape) {
  PackedBatch batch;
  std::mt19937 random(2);
  const auto id = [&] { return static_cast<int64_t>(random() % static_cast<uint32_t>(shape.vocabulary)); };
  batch.document_offsets = {0};
  for (const int64_t length : shape.document_lengths) {
    for (int64_t i = 0; i < length; ++i) {
      batch.input_ids.push_back(id());
      batch.positions.push_back(i);
      batch.targets.push_back(i + 1 < length ? id() : -1);
    }
    batch.document_lengths.push_back(length);
    batch.document_offsets.push_back(batch.tokens());
  }
  return batch;
}

void training_pass(benchmark::State& state, const Shape& shape, at::ScalarType compute, at::ScalarType storage,
                   bool checkpointing) {
  GemmaOptions options;
  options.compute_dtype = compute;
  options.storage_dtype = storage;
  options.activation_checkpointing = checkpointing;
  Gemma model(config_of(shape), options);
  const std::vector<Parameter> parameters = model.trainable_parameters();
  double matrix_weights = 0;
  for (const Parameter& parameter : parameters) {
    if (!parameter.decays) continue;
    matrix_weights += static_cast<double>(parameter.tensor.numel());
    const at::NoGradGuard no_grad;
    at::Tensor(parameter.tensor).normal_(0, 0.02);
  }
  const PackedBatch batch = batch_of(shape);
  for (auto _ : state) {
    const DeviceBatch on_device = to_device(batch, at::kCPU);
    chunked_cross_entropy(model.forward(on_device), model.head_weight(), on_device.target_rows,
                          on_device.targets.index_select(0, on_device.target_rows), {.backward_starts_here = true})
        .backward();
    for (const Parameter& parameter : parameters) parameter.tensor.mutable_grad().reset();
  }
  double pairs = 0;  // of a query and a key that it sees
  for (const int64_t length : shape.document_lengths) pairs += static_cast<double>(length * (length + 1)) / 2;
  const auto tokens = static_cast<double>(batch.tokens());
  report(state, tokens,
         6 * tokens * matrix_weights + 12 * static_cast<double>(shape.layers * shape.heads * shape.head_dim) * pairs);
}
#define MODEL_PASS(name, shape)                                                               \
  MODEL_BENCHMARK(training_pass, name##_fp32, shape, at::kFloat, at::kFloat, false);          \
  MODEL_BENCHMARK(training_pass, name##_bf16_mixed, shape, at::kBFloat16, at::kFloat, false); \
  MODEL_BENCHMARK(training_pass, name##_bf16, shape, at::kBFloat16, at::kBFloat16, false)
MODEL_PASS(demo, demo_shape());
MODEL_PASS(270m_32k, gemma_270m(32'768));
MODEL_PASS(270m_262k, gemma_270m(262'144));
MODEL_BENCHMARK(training_pass, 270m_32k_fp32_checkpointed, gemma_270m(32'768), at::kFloat, at::kFloat, true);

}  // namespace
}  // namespace gemma_sft
