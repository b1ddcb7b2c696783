// Every case below tests/golden: logits, loss and each gradient as Hugging Face transformers computes them (fp32,
// eager), packed and padded; and how far bf16 is from that, against what it costs transformers itself.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_log_softmax.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>

#include "model/chunked_cross_entropy.h"
#include "model/device_batch.h"
#include "tests/model/golden_case.h"

namespace gemma_sft {
namespace {

struct Outcome {
  PackedBatch batch;
  at::Tensor logits;
  double loss = 0;
  NamedTensors gradients;
};

// Forward and backward pass of the case's batch through a model.
Outcome run(Gemma& model, const NamedTensors& expected, Layout layout) {
  for (const Parameter& parameter : model.base_parameters()) at::Tensor(parameter.tensor).requires_grad_(true);
  Outcome outcome;
  outcome.batch = make_batch(expected, layout);
  const DeviceBatch batch = to_device(outcome.batch, test_device());
  const at::Tensor hidden = model.forward(batch);
  {
    at::NoGradGuard no_grad;
    outcome.logits = model.logits(hidden).to(at::kCPU);
  }
  const at::Tensor loss = chunked_cross_entropy(hidden, model.head_weight(), batch.target_rows,
                                                batch.targets.index_select(0, batch.target_rows),
                                                {.logit_softcap = model.config().logit_softcap})
                              .div(static_cast<double>(batch.target_tokens));
  loss.backward();
  outcome.loss = loss.item<double>();
  for (const Parameter& parameter : model.base_parameters()) {
    outcome.gradients[parameter.name] = parameter.tensor.grad().to(at::kCPU, at::kFloat);
  }
  return outcome;
}

struct Errors {
  double logits_abs = 0, logits_rms = 0, loss_abs = 0, grad_rel = 0, grad_rms_rel = 0;
  std::string worst_gradient;
};

Errors errors_of(const Outcome& ours, const NamedTensors& expected) {
  Errors errors;
  errors.logits_abs = largest_error(ours.logits, expected.at("logits"), ours.batch);
  errors.loss_abs = std::abs(ours.loss - expected.at("loss").item<double>());
  double squares = 0;
  for (int64_t row = 0; row < ours.batch.documents(); ++row) {
    const auto i = static_cast<size_t>(row);
    const at::Tensor a = ours.logits.narrow(0, ours.batch.document_offsets[i], ours.batch.document_lengths[i]);
    const at::Tensor b = expected.at("logits").select(0, row).narrow(0, 0, ours.batch.document_lengths[i]);
    squares += a.sub(b).square().sum().item<double>();
  }
  errors.logits_rms = std::sqrt(squares / static_cast<double>(ours.batch.real_tokens * ours.logits.size(1)));
  const NamedTensors gradients = tensors_of_model(expected, "grad.");
  EXPECT_EQ(ours.gradients.size(), gradients.size());
  for (const auto& [name, theirs] : gradients) {
    const at::Tensor& gradient = ours.gradients.at(name);
    const double error = gradient.sub(theirs).abs().max().item<double>() / (theirs.abs().max().item<double>() + 1e-12);
    errors.grad_rms_rel =
        larger_error(errors.grad_rms_rel, gradient.sub(theirs).norm().item<double>() / theirs.norm().item<double>());
    errors.grad_rel = larger_error(errors.grad_rel, error);
    if (errors.grad_rel == error || std::isnan(error)) errors.worst_gradient = name;
  }
  return errors;
}

void record(const std::string& prefix, const Errors& errors) {
  ::testing::Test::RecordProperty(prefix + "logits_abs", std::to_string(errors.logits_abs * 1e6) + "e-6");
  ::testing::Test::RecordProperty(prefix + "loss_abs", std::to_string(errors.loss_abs * 1e6) + "e-6");
  ::testing::Test::RecordProperty(prefix + "logits_rms", std::to_string(errors.logits_rms * 1e6) + "e-6");
  ::testing::Test::RecordProperty(prefix + "grad_rms_rel", std::to_string(errors.grad_rms_rel * 1e6) + "e-6");
  ::testing::Test::RecordProperty(prefix + "grad_rel", std::to_string(errors.grad_rel * 1e6) + "e-6");
}

class GoldenCase : public ::testing::TestWithParam<std::string> {
 protected:
  std::string name_ = GetParam();
  nlohmann::json case_ = read_golden_json(name_);
  NamedTensors expected_ = read_tensors(golden_folder(name_) / "expected.safetensors");
};

TEST_P(GoldenCase, LogitsLossAndEveryGradientEqualTheReference) {
  for (const Layout layout : {Layout::kPacked, Layout::kPadded}) {
    Gemma model = load_golden_model(name_);
    const Errors errors = errors_of(run(model, expected_, layout), expected_);
    const auto& tolerances = case_.at("tolerances");
    EXPECT_LE(errors.logits_abs, tolerances.at("logits_abs"));
    EXPECT_LE(errors.loss_abs, tolerances.at("loss_abs"));
    EXPECT_LE(errors.grad_rel, tolerances.at("grad_rel")) << errors.worst_gradient;
    record(layout == Layout::kPacked ? "packed_" : "padded_", errors);
  }
}

TEST_P(GoldenCase, PackedEqualsPaddedTokenByToken) {
  Gemma model = load_golden_model(name_);
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> logprobs;  // of the real tokens, [tokens, vocabulary]
  for (const Layout layout : {Layout::kPacked, Layout::kPadded}) {
    const PackedBatch batch = make_batch(expected_, layout);
    const at::Tensor logits = model.logits(model.forward(to_device(batch, test_device()))).to(at::kCPU);
    std::vector<at::Tensor> rows;
    for (size_t row = 0; row < batch.document_lengths.size(); ++row) {
      rows.push_back(logits.narrow(0, batch.document_offsets[row], batch.document_lengths[row]));
    }
    logprobs.push_back(at::_log_softmax(at::cat(rows), -1, false));
  }
  const double error = logprobs[0].sub(logprobs[1]).abs().max().item<double>();
  // A GPU's matrix products choose the order of their sums by the shape: there the layouts may be as far from each
  // other as from the reference.
  double bar = 1e-5;
  if (!test_device().is_cpu()) bar = std::max(bar, case_.at("tolerances").at("logits_abs").get<double>());
  EXPECT_LE(error, bar);
  RecordProperty("logprob_abs", std::to_string(error * 1e6) + "e-6");
}

// bf16 keeps 8 bits of a number where fp32 keeps 24: two correct programs that round at other places differ by as much
// as either differs from fp32. So the bounds come from what bf16 costs transformers (tests/golden/bf16.py).
TEST_P(GoldenCase, Bf16CostsWhatItCostsTheReference) {
  const auto& bounds = case_.at("bf16").at("bounds");
  for (const auto storage : {at::kFloat, at::kBFloat16}) {
    GemmaOptions options;
    options.storage_dtype = storage;
    options.compute_dtype = at::kBFloat16;
    Gemma model = load_golden_model(name_, options);
    const std::string precision = storage == at::kFloat ? "bf16_mixed" : "bf16";
    const Errors errors = errors_of(run(model, expected_, Layout::kPacked), expected_);
    EXPECT_LE(errors.logits_abs, bounds.at("logits_abs")) << precision;
    EXPECT_LE(errors.logits_rms, bounds.at("logits_rms")) << precision;
    EXPECT_LE(errors.loss_abs, bounds.at("loss_abs")) << precision;
    EXPECT_LE(errors.grad_rms_rel, bounds.at("grad_rms_rel")) << precision;
    EXPECT_GT(errors.logits_rms, 0.5 * case_.at("bf16").at(precision).at("logits_rms").get<double>());  // it is bf16
    record(precision + "_", errors);
  }
}

TEST(GoldenCaseErrors, ANumberThatIsNoneIsTheLargest) {
  EXPECT_TRUE(std::isnan(larger_error(1, std::nan(""))));
  EXPECT_TRUE(std::isnan(larger_error(std::nan(""), 1)));
  EXPECT_EQ(larger_error(1, 2), 2);
  EXPECT_EQ(larger_error(2, 1), 2);
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenCase, ::testing::ValuesIn(golden_case_names()),
                         [](const auto& parameters) { return test_name(parameters.param); });

}  // namespace
}  // namespace gemma_sft
