// The GPU against the CPU: the same tiny models, the same batch, fp32 without TF32. Built in CUDA builds only and run
// by tests/gpu/run.sh; a machine without a GPU fails here, it does not skip.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "data/batches/packed_batch.h"
#include "model/chunked_cross_entropy.h"
#include "model/device_batch.h"
#include "model/gemma.h"

namespace gemma_sft {
namespace {

// Three documents of unlike length, the last longer than the tiny models' window.
PackedBatch make_batch(int64_t vocab) {
  PackedBatch batch;
  batch.document_offsets = {0};
  uint64_t state = 7;
  for (int64_t length : {5, 19, 90}) {
    for (int64_t t = 0; t < length; ++t) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      batch.input_ids.push_back(static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(vocab - 1)) + 1);
      batch.positions.push_back(t);
    }
    batch.document_lengths.push_back(length);
    batch.document_offsets.push_back(static_cast<int64_t>(batch.input_ids.size()));
    batch.row_ids.push_back("row");
    batch.row_lines.push_back(1);
  }
  batch.real_tokens = batch.tokens();
  batch.targets.assign(batch.input_ids.size(), -1);
  for (int64_t document = 0; document < batch.documents(); ++document) {
    const auto begin = batch.document_offsets[static_cast<size_t>(document)];
    for (int64_t t = 2; t + 1 < batch.document_lengths[static_cast<size_t>(document)]; ++t) {
      batch.targets[static_cast<size_t>(begin + t)] = batch.input_ids[static_cast<size_t>(begin + t + 1)];
      ++batch.target_tokens;
    }
  }
  return batch;
}

struct Outcome {
  at::Tensor hidden;
  double loss = 0;
  std::vector<std::pair<std::string, at::Tensor>> gradients;
};

Outcome forward_backward(const GemmaConfig& config, const std::vector<Parameter>& weights, c10::Device device,
                         bool checkpointing) {
  GemmaOptions options;
  options.device = device;
  options.activation_checkpointing = checkpointing;
  Gemma model(config, options);
  {
    at::NoGradGuard no_grad;
    const auto own = model.base_parameters();
    for (size_t i = 0; i < own.size(); ++i) own[i].tensor.copy_(weights[i].tensor);
  }
  const DeviceBatch batch = to_device(make_batch(config.vocab_size), device);
  const at::Tensor hidden = model.forward(batch);
  CrossEntropyOptions loss_options;
  loss_options.logit_softcap = config.logit_softcap;
  const at::Tensor loss = chunked_cross_entropy(hidden, model.head_weight(), batch.target_rows,
                                                batch.targets.index_select(0, batch.target_rows), loss_options);
  loss.backward();
  Outcome outcome;
  outcome.hidden = hidden.detach().to(at::kCPU);
  outcome.loss = loss.item<double>() / static_cast<double>(batch.target_tokens);
  for (const Parameter& parameter : model.base_parameters()) {
    outcome.gradients.emplace_back(parameter.name, parameter.tensor.grad().to(at::kCPU));
  }
  return outcome;
}

class GpuEqualsCpu : public ::testing::TestWithParam<const char*> {};

TEST_P(GpuEqualsCpu, hidden_states_loss_and_every_gradient) {
  ASSERT_TRUE(at::globalContext().hasCUDA()) << "no CUDA device is visible to this program";
  at::globalContext().setAllowTF32CuBLAS(false);
  GemmaConfig config = *find_preset(GetParam());
  config.vocab_size = 512;
  Gemma source(config, {});
  {
    at::NoGradGuard no_grad;
    for (const Parameter& parameter : source.base_parameters()) parameter.tensor.normal_(0, 0.05);
  }
  const Outcome cpu = forward_backward(config, source.base_parameters(), c10::Device(c10::kCPU), false);
  for (const bool checkpointing : {false, true}) {
    const Outcome gpu = forward_backward(config, source.base_parameters(), c10::Device(c10::kCUDA, 0), checkpointing);
    EXPECT_LT((cpu.hidden - gpu.hidden).abs().max().item<double>(), 1e-4);
    EXPECT_NEAR(cpu.loss, gpu.loss, 1e-5);
    for (size_t i = 0; i < cpu.gradients.size(); ++i) {
      const double scale = cpu.gradients[i].second.abs().max().item<double>() + 1e-12;
      const double error = (cpu.gradients[i].second - gpu.gradients[i].second).abs().max().item<double>();
      EXPECT_LT(error / scale, 1e-4) << cpu.gradients[i].first;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(families, GpuEqualsCpu, ::testing::Values("tiny-gemma-1", "tiny-gemma-2", "tiny-gemma-3"));

}  // namespace
}  // namespace gemma_sft
