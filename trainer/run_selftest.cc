#include "trainer/run_selftest.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <vector>

#include "data/batches/packer.h"
#include "model/chunked_cross_entropy.h"
#include "model/device_batch.h"
#include "model/gemma.h"
#include "model/weights.h"
#include "trainer/device.h"
#include "trainer/run/utf8_json.h"
#include "trainer/training_failure.h"

namespace gemma_sft {
namespace {

constexpr const char* kRemedy = "Name a smaller case (--case), or use a device with more memory (--device).";

constexpr int64_t kLogitsAtOnce = int64_t{16} << 20;  // numbers compared at once

// NaN is the worst of all; std::max would drop it.
bool is_worse(double a, double b) { return !std::isnan(b) && (std::isnan(a) || a > b); }
double larger(double a, double b) { return is_worse(a, b) ? a : b; }

double finite_or_nan(double value) { return std::isfinite(value) ? value : std::numeric_limits<double>::quiet_NaN(); }

double largest(const at::Tensor& tensor) { return tensor.abs().max().item<double>(); }

Gemma load_in_fp32(const SelftestCase& reference, c10::Device device) {
  GemmaOptions options;
  options.device = device;
  std::optional<Gemma> model;
  with_memory_errors_explained({.phase = "loading the model", .remedy = kRemedy},
                               [&] { model.emplace(load_gemma(reference.model_folder(), options)); });
  return std::move(*model);
}

double logits_error(Gemma& model, const at::Tensor& hidden, const PackedBatch& batch, const SelftestCase& reference) {
  const c10::NoGradGuard no_grad;
  const int64_t vocabulary = reference.config.vocab_size;
  const int64_t at_once = std::max<int64_t>(1, kLogitsAtOnce / vocabulary);
  double worst = 0;
  for (int64_t row = 0; row < batch.documents(); ++row) {
    const int64_t length = batch.document_lengths[static_cast<size_t>(row)];
    for (int64_t first = 0; first < length; first += at_once) {
      const int64_t count = std::min(at_once, length - first);
      std::vector<float> values = reference.logits(row, first, count);
      const at::Tensor theirs = at::from_blob(values.data(), {count, vocabulary}).to(hidden.device());
      const int64_t place = batch.document_offsets[static_cast<size_t>(row)] + first;
      worst = larger(largest(model.logits(hidden.narrow(0, place, count)).sub(theirs)), worst);
    }
  }
  return worst;
}

struct Worst {
  double error = 0;
  std::string name;
};

// The model's gradients are those of the summed loss.
Worst gradient_error(const Gemma& model, const SelftestCase& reference, double targets) {
  const c10::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> parameters;
  for (const Parameter& parameter : model.base_parameters()) parameters[parameter.name] = parameter.tensor;
  Worst worst;
  for (const SelftestCase::Gradient& gradient : reference.gradients) {
    const at::Tensor& parameter = parameters.at(gradient.parameter);
    at::Tensor theirs = at::empty(parameter.sizes(), at::TensorOptions().dtype(at::kFloat));
    reference.read_gradient(gradient, theirs.data_ptr<float>());
    theirs = theirs.to(parameter.device());
    const at::Tensor ours = parameter.grad().defined() ? parameter.grad().div(targets) : at::zeros_like(parameter);
    const double error = largest(ours.sub(theirs)) / (largest(theirs) + 1e-12);
    if (worst.name.empty() || is_worse(error, worst.error)) worst = {error, gradient.name};
  }
  return worst;
}

void replay(Gemma& model, const SelftestCase& reference, bool packing, SelftestResult& result) {
  std::vector<int64_t> lines(reference.rows.size());
  std::iota(lines.begin(), lines.end(), 0);
  const PackedBatch batch = pack(reference.rows, lines, reference.folder.string(), {.packing = packing});
  with_memory_errors_explained({.phase = "selftest", .batch = &batch, .remedy = kRemedy}, [&] {
    const DeviceBatch on_device = to_device(batch, model.options().device);
    const at::Tensor hidden = model.forward(on_device);
    result.logits_max_abs_err =
        larger(logits_error(model, hidden.detach(), batch, reference), result.logits_max_abs_err);
    const at::Tensor loss = chunked_cross_entropy(hidden, model.head_weight(), on_device.target_rows,
                                                  on_device.targets.index_select(0, on_device.target_rows),
                                                  {.logit_softcap = model.config().logit_softcap});
    loss.backward();
    const double targets = static_cast<double>(batch.target_tokens);
    const double loss_error = std::abs(loss.item<double>() / targets - static_cast<double>(reference.loss));
    result.loss_abs_err = larger(loss_error, result.loss_abs_err);
    const Worst worst = gradient_error(model, reference, targets);
    if (result.worst_grad.empty() || is_worse(worst.error, result.grad_max_rel_err)) {
      result.grad_max_rel_err = worst.error;
      result.worst_grad = worst.name;
    }
    for (const Parameter& parameter : model.base_parameters()) at::Tensor(parameter.tensor).mutable_grad().reset();
  });
}

}  // namespace

SelftestResult run_selftest(const SelftestCase& reference, const std::string& device) {
  Gemma model = load_in_fp32(reference, choose_device(device));
  SelftestResult result;
  result.name = reference.name;
  for (const bool packing : {true, false}) replay(model, reference, packing, result);
  result.logits_max_abs_err = finite_or_nan(result.logits_max_abs_err);
  result.loss_abs_err = finite_or_nan(result.loss_abs_err);
  result.grad_max_rel_err = finite_or_nan(result.grad_max_rel_err);
  result.ok = result.logits_max_abs_err <= reference.tolerances.logits_abs &&
              result.loss_abs_err <= reference.tolerances.loss_abs &&
              result.grad_max_rel_err <= reference.tolerances.grad_rel;
  return result;
}

std::string to_json(const SelftestResult& result) {
  const nlohmann::ordered_json document = {{"name", result.name},
                                           {"logits_max_abs_err", result.logits_max_abs_err},
                                           {"loss_abs_err", result.loss_abs_err},
                                           {"grad_max_rel_err", result.grad_max_rel_err},
                                           {"worst_grad", result.worst_grad},
                                           {"ok", result.ok}};
  return utf8_json(document);
}

}  // namespace gemma_sft
