#include "trainer/train_step.h"

#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "configs/error.h"
#include "model/chunked_cross_entropy.h"
#include "model/device_batch.h"
#include "trainer/device.h"
#include "trainer/training_failure.h"

namespace gemma_sft {

TrainStep::TrainStep(Gemma& model, Optimizer& optimizer, const TrainStepOptions& options)
    : model_(model), optimizer_(optimizer), options_(options) {}

void TrainStep::accumulate(const PackedBatch& batch, int64_t step) {
  with_memory_errors_explained({"forward and backward pass", step, &batch},
                               [&] { losses_.push_back(forward_and_backward(batch)); });
  tokens_ += batch.real_tokens;
  target_tokens_ += batch.target_tokens;
}

void TrainStep::rehearse(const PackedBatch& batch, int64_t times, int64_t step) {
  with_memory_errors_explained(
      {"preflight of the largest micro-batch of the run: forward and backward pass", step, &batch}, [&] {
        for (int64_t i = 0; i < times; ++i) forward_and_backward(batch);
        wait_for_device(model_.options().device);
      });
  optimizer_.drop_gradients();
}

at::Tensor TrainStep::forward_and_backward(const PackedBatch& batch) {
  const DeviceBatch on_device = to_device(batch, model_.options().device);
  const at::Tensor hidden = model_.forward(on_device);
  const at::Tensor loss = chunked_cross_entropy(
      hidden, model_.head_weight(), on_device.target_rows, on_device.targets.index_select(0, on_device.target_rows),
      {.logit_softcap = model_.config().logit_softcap, .backward_starts_here = true});
  loss.backward();
  return loss.detach();
}

StepStats TrainStep::apply(double rate, const std::vector<PackedBatch>& batches, int64_t step) {
  StepStats stats;
  with_memory_errors_explained({"optimizer step", step}, [&] {
    const Sums sums = sum_up(static_cast<double>(std::max<int64_t>(1, target_tokens_)));
    optimizer_.step(rate, sums.divisor, sums.skip, step);
    const at::Tensor values = sums.loss_and_norm.to(at::kCPU);  // the step's one wait
    stats = {.loss = values.const_data_ptr<double>()[0],
             .grad_norm = values.const_data_ptr<double>()[1],
             .tokens = tokens_,
             .target_tokens = target_tokens_,
             .skipped = !std::isfinite(values.const_data_ptr<double>()[0]) ||
                        !std::isfinite(values.const_data_ptr<double>()[1])};
  });
  losses_.clear();
  tokens_ = target_tokens_ = 0;
  optimizer_.drop_gradients();
  if (stats.skipped && options_.on_nonfinite == OnNonFinite::kStop) {
    throw Error(
        ErrorKind::kNonFinite,
        fmt::format("step {}: loss {}, gradient norm {}: not finite; nothing was updated. The rows of the step: {}. "
                    "Look at these rows, lower training.learning_rate, or set training.on_nonfinite: skip",
                    step, without_sign_of_nan(stats.loss), without_sign_of_nan(stats.grad_norm),
                    describe_rows(batches)));
  }
  return stats;
}

TrainStep::Sums TrainStep::sum_up(double targets) const {
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const Parameter& parameter : optimizer_.parameters()) {
    if (!parameter.tensor.grad().defined()) {
      throw Error(ErrorKind::kInternal, fmt::format("optimizer step: {} has no gradient", parameter.name));
    }
    gradients.push_back(parameter.tensor.grad());
  }
  const at::Tensor norms = at::stack(at::_foreach_norm(gradients, 2, at::kFloat)).to(at::kDouble);
  const at::Tensor norm = norms.square().sum().sqrt().div_(targets);
  const at::Tensor loss = at::stack(losses_).to(at::kDouble).sum().div_(targets);
  Sums sums;
  sums.loss_and_norm = at::stack({loss, norm});
  sums.skip = sums.loss_and_norm.isfinite().all().logical_not().to(at::kFloat);
  if (options_.max_grad_norm > 0) {
    // targets / min(1, max_grad_norm / (norm + 1e-6)) without a division by nearly nothing.
    const at::Tensor excess = norm.add(1e-6).div_(options_.max_grad_norm);
    sums.divisor = excess.clamp_min_(1.0).mul_(targets).to(at::kFloat);
  } else {
    sums.divisor = at::full({}, targets, norm.options().dtype(at::kFloat));
  }
  return sums;
}

}  // namespace gemma_sft
