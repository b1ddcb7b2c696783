// How fast a training step is, and its parts that are ours: the loss head, the update. Items are tokens.
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <benchmark/benchmark.h>
#include <c10/core/GradMode.h>

#include "model/chunked_cross_entropy.h"
#include "model/gemma.h"
#include "trainer/model_source.h"
#include "trainer/optimizer.h"
#include "trainer/train_step.h"

namespace gemma_sft {
namespace {

constexpr int64_t kTokens = 512;

// Four blocks of a Gemma 3 with the head of a small vocabulary: 24 million weights.
GemmaConfig small_gemma() {
  GemmaConfig config = *find_preset("tiny-gemma-3");
  config.vocab_size = 16384;
  config.hidden_size = 512;
  config.intermediate_size = 2048;
  config.num_layers = 4;
  config.layer_kinds = {LayerKind::kSliding, LayerKind::kSliding, LayerKind::kSliding, LayerKind::kGlobal};
  config.num_heads = 4;
  config.num_kv_heads = 1;
  config.head_dim = 128;
  config.sliding_window = 256;
  return config;
}

// Eight documents of 64 tokens, every token but the first of each a target.
PackedBatch batch_of(int64_t vocab) {
  PackedBatch batch;
  uint64_t state = 1;
  for (int64_t document = 0; document < 8; ++document) {
    batch.document_offsets.push_back(document * 64);
    batch.document_lengths.push_back(64);
    for (int64_t t = 0; t < 64; ++t) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      batch.input_ids.push_back(static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(vocab)));
      batch.positions.push_back(t);
    }
  }
  batch.document_offsets.push_back(kTokens);
  for (int64_t i = 0; i < kTokens; ++i) {
    const bool last = i % 64 == 63;
    batch.targets.push_back(last ? -1 : batch.input_ids[static_cast<size_t>(i + 1)]);
    batch.target_tokens += last ? 0 : 1;
  }
  batch.real_tokens = kTokens;
  return batch;
}

void initialise(Gemma& model) {
  const c10::NoGradGuard no_grad;
  for (const Parameter& parameter : model.base_parameters()) at::Tensor(parameter.tensor).normal_(0, 0.02);
}

void a_training_step(benchmark::State& state, Precision precision, bool lora) {
  Gemma model(small_gemma(), model_options(precision, c10::Device(c10::kCPU)));
  initialise(model);
  if (lora)
    model.add_lora({.rank = 16, .target_modules = {"q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"}}, 1);
  Optimizer optimizer(model.trainable_parameters(), {});
  TrainStep step(model, optimizer, {});
  const std::vector<PackedBatch> batches = {batch_of(model.config().vocab_size)};
  for (auto _ : state) {
    step.accumulate(batches[0], 1);
    benchmark::DoNotOptimize(step.apply(1e-4, batches, 1).loss);
  }
  state.SetItemsProcessed(state.iterations() * kTokens);
}
BENCHMARK_CAPTURE(a_training_step, fp32, Precision::kFp32, false)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(a_training_step, bf16_mixed, Precision::kBf16Mixed, false)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(a_training_step, bf16, Precision::kBf16, false)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(a_training_step, lora_fp32, Precision::kFp32, true)->Unit(benchmark::kMillisecond)->UseRealTime();

void the_loss_head(benchmark::State& state) {
  const int64_t vocab = state.range(0);
  const at::Tensor hidden = at::randn({kTokens, 512}).requires_grad_(true);
  const at::Tensor weight = (at::randn({vocab, 512}).mul_(0.02)).requires_grad_(true);
  const at::Tensor rows = at::arange(kTokens, at::kLong);
  const at::Tensor targets = at::randint(vocab, {kTokens}, at::kLong);
  for (auto _ : state) {
    chunked_cross_entropy(hidden, weight, rows, targets, {.backward_starts_here = true}).backward();
    at::Tensor(hidden).mutable_grad().reset();
    at::Tensor(weight).mutable_grad().reset();
  }
  state.SetItemsProcessed(state.iterations() * kTokens);
}
BENCHMARK(the_loss_head)->Arg(16384)->Arg(262144)->Unit(benchmark::kMillisecond)->UseRealTime();

void the_update(benchmark::State& state) {
  Gemma model(small_gemma(), {});
  initialise(model);
  Optimizer optimizer(model.trainable_parameters(), {});
  for (const Parameter& parameter : optimizer.parameters()) {
    at::Tensor(parameter.tensor).mutable_grad() = at::randn(parameter.tensor.sizes());
  }
  const at::Tensor one = at::ones({}), zero = at::zeros({});
  int64_t step = 0;
  for (auto _ : state) optimizer.step(1e-5, one, zero, ++step);
}
BENCHMARK(the_update)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace gemma_sft
