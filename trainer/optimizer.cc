#include "trainer/optimizer.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "model/gpu/fused.h"
#include "model/gpu/fused_adamw.h"

namespace gemma_sft {

OptimizerOptions optimizer_options(const TrainingSection& training) {
  return {.beta1 = training.adam_beta1,
          .beta2 = training.adam_beta2,
          .epsilon = training.adam_epsilon,
          .weight_decay = training.weight_decay,
          .stochastic_rounding = training.stochastic_rounding,
          .seed = training.seed};
}

Optimizer::Optimizer(std::vector<Parameter> parameters, const OptimizerOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  const c10::NoGradGuard no_grad;
  if (!parameters_.empty()) {
    const auto options_of_steps = parameters_[0].tensor.options().dtype(at::kFloat).requires_grad(false);
    steps_ = at::zeros({static_cast<int64_t>(parameters_.size())}, options_of_steps);
  }
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = parameters_[i];
    const at::Tensor& weight = parameter.tensor;
    const double decay = parameter.decays ? options_.weight_decay : 0.0;
    auto group = std::find_if(groups_.begin(), groups_.end(), [&](const Group& g) {
      return g.weight_decay == decay && g.parameters[0].scalar_type() == weight.scalar_type();
    });
    if (group == groups_.end()) {
      groups_.push_back(
          {.weight_decay = decay, .parameters = {}, .exp_avgs = {}, .exp_avg_sqs = {}, .steps = {}, .numbers = {}});
      group = groups_.end() - 1;
    }
    places_.emplace_back(group - groups_.begin(), group->parameters.size());
    group->parameters.push_back(weight);
    group->exp_avgs.push_back(at::zeros_like(weight));
    group->exp_avg_sqs.push_back(at::zeros_like(weight));
    group->steps.push_back(steps_.select(0, static_cast<int64_t>(i)));
    group->numbers.push_back(i);
  }
}

void Optimizer::step(double rate, const at::Tensor& divisor, const at::Tensor& skip, int64_t number) {
  const c10::NoGradGuard no_grad;
  if (steps_.defined()) steps_.add_(skip.neg().add_(1));
  for (Group& group : groups_) {
    std::vector<at::Tensor> gradients;
    gradients.reserve(group.parameters.size());
    for (const at::Tensor& parameter : group.parameters) gradients.push_back(parameter.grad());
    const at::Tensor& first = group.parameters[0];
    if (takes_fused(FusedKernel::kAdamW, first) ||
        (options_.stochastic_rounding && first.scalar_type() == at::kBFloat16)) {
      step_by_our_kernel(group, gradients, rate, divisor, skip, number);
      continue;
    }
    at::_fused_adamw_(group.parameters, gradients, group.exp_avgs, group.exp_avg_sqs, /*max_exp_avg_sqs=*/{},
                      group.steps, rate, options_.beta1, options_.beta2, group.weight_decay, options_.epsilon,
                      /*amsgrad=*/false,
                      /*maximize=*/false, divisor, skip);
  }
}

void Optimizer::step_by_our_kernel(Group& group, const std::vector<at::Tensor>& gradients, double rate,
                                   const at::Tensor& divisor, const at::Tensor& skip, int64_t number) {
  std::vector<AdamWTensors> tensors;
  tensors.reserve(gradients.size());
  for (size_t i = 0; i < gradients.size(); ++i) {
    tensors.push_back({.weight = group.parameters[i],
                       .gradient = gradients[i].contiguous(),
                       .mean = group.exp_avgs[i],
                       .square = group.exp_avg_sqs[i],
                       .step = group.steps[i],
                       .weight_decay = group.weight_decay,
                       .random_key = adamw_random_key(options_.seed, number, group.numbers[i])});
  }
  fused_adamw(tensors, {.rate = rate,
                        .beta1 = options_.beta1,
                        .beta2 = options_.beta2,
                        .epsilon = options_.epsilon,
                        .divisor = divisor,
                        .skip = skip,
                        .stochastic = options_.stochastic_rounding});
}

void Optimizer::drop_gradients() {
  for (Parameter& parameter : parameters_) parameter.tensor.mutable_grad().reset();
}

std::vector<OptimizerMoments> Optimizer::moments() const {
  std::vector<OptimizerMoments> all;
  all.reserve(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto [g, k] = places_[i];
    const Group& group = groups_[g];
    all.push_back({parameters_[i].name, group.exp_avgs[k], group.exp_avg_sqs[k], group.steps[k]});
  }
  return all;
}

}  // namespace gemma_sft
