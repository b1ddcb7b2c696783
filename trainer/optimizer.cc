#include "trainer/optimizer.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>

#include "configs/error.h"

namespace gemma_sft {

OptimizerOptions optimizer_options(const TrainingSection& training) {
  return {.beta1 = training.adam_beta1,
          .beta2 = training.adam_beta2,
          .epsilon = training.adam_epsilon,
          .weight_decay = training.weight_decay};
}

Optimizer::Optimizer(std::vector<Parameter> parameters, const OptimizerOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  const c10::NoGradGuard no_grad;
  for (const Parameter& parameter : parameters_) {
    const at::Tensor& weight = parameter.tensor;
    const double decay = parameter.decays ? options_.weight_decay : 0.0;
    auto group = std::find_if(groups_.begin(), groups_.end(), [&](const Group& g) {
      return g.weight_decay == decay && g.parameters[0].scalar_type() == weight.scalar_type();
    });
    if (group == groups_.end()) {
      groups_.push_back({.weight_decay = decay, .parameters = {}, .exp_avgs = {}, .exp_avg_sqs = {}, .steps = {}});
      group = groups_.end() - 1;
    }
    places_.emplace_back(group - groups_.begin(), group->parameters.size());
    group->parameters.push_back(weight);
    group->exp_avgs.push_back(at::zeros_like(weight));
    group->exp_avg_sqs.push_back(at::zeros_like(weight));
    group->steps.push_back(at::zeros({}, weight.options().dtype(at::kFloat)));
  }
}

void Optimizer::step(double rate, double gradient_divisor) {
  const c10::NoGradGuard no_grad;
  for (Group& group : groups_) {
    std::vector<at::Tensor> gradients;
    gradients.reserve(group.parameters.size());
    for (const at::Tensor& parameter : group.parameters) {
      if (!parameter.grad().defined())
        throw Error(ErrorKind::kInternal, "optimizer: a trained parameter has no gradient");
      gradients.push_back(parameter.grad());
    }
    const at::Tensor divisor =
        at::full({}, gradient_divisor, group.parameters[0].options().dtype(at::kFloat).requires_grad(false));
    at::_foreach_add_(group.steps, 1);
    at::_fused_adamw_(group.parameters, gradients, group.exp_avgs, group.exp_avg_sqs, /*max_exp_avg_sqs=*/{},
                      group.steps, rate, options_.beta1, options_.beta2, group.weight_decay, options_.epsilon,
                      /*amsgrad=*/false,
                      /*maximize=*/false, divisor);
  }
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
