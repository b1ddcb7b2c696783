#include "trainer/train_step.h"

#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "configs/error.h"
#include "model/chunked_cross_entropy.h"
#include "model/device_batch.h"
#include "trainer/training_failure.h"

namespace gemma_sft {

double clip_coefficient(double grad_norm, double max_grad_norm) {
  if (max_grad_norm <= 0) return 1.0;
  return std::min(1.0, max_grad_norm / (grad_norm + 1e-6));
}

TrainStep::TrainStep(Gemma& model, Optimizer& optimizer, const TrainStepOptions& options)
    : model_(model), optimizer_(optimizer), options_(options) {}

void TrainStep::accumulate(const PackedBatch& batch, int64_t step) {
  with_memory_errors_explained({"forward and backward pass", step, &batch}, [&] {
    const DeviceBatch on_device = to_device(batch, model_.options().device);
    const at::Tensor hidden = model_.forward(on_device);
    const at::Tensor loss = chunked_cross_entropy(hidden, model_.head_weight(), on_device.target_rows,
                                                  on_device.targets.index_select(0, on_device.target_rows),
                                                  {.logit_softcap = model_.config().logit_softcap});
    loss.backward();
    losses_.push_back(loss.detach());
  });
  tokens_ += batch.real_tokens;
  target_tokens_ += batch.target_tokens;
}

StepStats TrainStep::apply(double rate, const std::vector<PackedBatch>& batches, int64_t step) {
  StepStats stats;
  with_memory_errors_explained({"optimizer step", step}, [&] {
    const Sums sums = read_sums();
    const double targets = static_cast<double>(std::max<int64_t>(1, target_tokens_));
    stats = {.loss = sums.loss / targets,
             .grad_norm = sums.grad_norm / targets,
             .tokens = tokens_,
             .target_tokens = target_tokens_,
             .skipped = !std::isfinite(sums.loss) || !std::isfinite(sums.grad_norm)};
    if (!stats.skipped) {
      optimizer_.step(rate, targets / clip_coefficient(stats.grad_norm, options_.max_grad_norm));
    }
  });
  losses_.clear();
  tokens_ = target_tokens_ = 0;
  optimizer_.drop_gradients();
  if (stats.skipped && options_.on_nonfinite == OnNonFinite::kStop) {
    throw Error(
        ErrorKind::kNonFinite,
        fmt::format("step {}: loss {}, gradient norm {}: not finite; nothing was updated. The rows of the step: {}. "
                    "Look at these rows, lower training.learning_rate, or set training.on_nonfinite: skip",
                    step, stats.loss, stats.grad_norm, describe_rows(batches)));
  }
  return stats;
}

TrainStep::Sums TrainStep::read_sums() const {
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const Parameter& parameter : optimizer_.parameters()) gradients.push_back(parameter.tensor.grad());
  std::vector<at::Tensor> scalars = at::_foreach_norm(gradients, 2, at::kFloat);
  scalars.insert(scalars.end(), losses_.begin(), losses_.end());
  const at::Tensor values = at::stack(scalars).to(at::kCPU, at::kDouble);
  const double* value = values.const_data_ptr<double>();
  Sums sums;
  for (size_t i = 0; i < gradients.size(); ++i) sums.grad_norm += value[i] * value[i];
  sums.grad_norm = std::sqrt(sums.grad_norm);
  for (size_t i = gradients.size(); i < scalars.size(); ++i) sums.loss += value[i];
  return sums;
}

}  // namespace gemma_sft
