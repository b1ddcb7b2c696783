// AdamW over the trained parameters of a model: on a GPU through our own kernel (model/gpu/fused_adamw.h), elsewhere
// through LibTorch's fused one.
//
//   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w -= lr * weight_decay * w
//   w -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
// The moments have their parameter's dtype: fp32 for fp32 masters and for LoRA, bf16 where the weights themselves are
// bf16 (as torch.optim.AdamW and so transformers' pure bf16 do). Weight decay applies to the parameters that say so
// (Parameter::decays: no norms, no biases). t counts the updates made, per parameter.
//
// With `stochastic_rounding` bf16 weights are rounded up or down at random, with chances that make them right on
// average: to the nearest, an update below a 512th of a weight is lost every time. The random numbers are a function of
// the seed, the step and the place, so that a resumed run draws the same ones.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "configs/run_config.h"
#include "model/gemma.h"

namespace gemma_sft {

struct OptimizerOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
  bool stochastic_rounding = false;
  uint64_t seed = 42;  // for it
};
OptimizerOptions optimizer_options(const TrainingSection& training);

// Moments of one parameter, for checkpoints.
struct OptimizerMoments {
  std::string name;  // the parameter's
  at::Tensor exp_avg;
  at::Tensor exp_avg_sq;
  at::Tensor step;  // fp32 scalar: updates made
};

// Shares the parameters' storage with the model. One thread at a time.
class Optimizer {
 public:
  Optimizer(std::vector<Parameter> parameters, const OptimizerOptions& options);

  // One update from the accumulated gradients, each divided by `divisor` on the way (inside the kernel); nothing
  // changes where `skip` is 1. Both are fp32 scalars on the parameters' device, so that the host need not know them.
  // `number`: the step of the run, from 1. Every parameter must have a gradient.
  void step(double rate, const at::Tensor& divisor, const at::Tensor& skip, int64_t number);
  void drop_gradients();

  const std::vector<Parameter>& parameters() const { return parameters_; }
  // The live tensors: copying into them restores a state.
  std::vector<OptimizerMoments> moments() const;

 private:
  // What one call of the fused kernel takes: one weight decay, one dtype, one device.
  struct Group {
    double weight_decay = 0;
    std::vector<at::Tensor> parameters, exp_avgs, exp_avg_sqs, steps;
    std::vector<size_t> numbers;  // of the parameters, in the order given
  };
  void step_by_our_kernel(Group& group, const std::vector<at::Tensor>& gradients, double rate,
                          const at::Tensor& divisor, const at::Tensor& skip, int64_t number);
  std::vector<Parameter> parameters_;
  OptimizerOptions options_;
  std::vector<Group> groups_;
  at::Tensor steps_;                               // fp32 [parameters]: all the groups' steps are views of it
  std::vector<std::pair<size_t, size_t>> places_;  // of parameter i: (group, index in it)
};

}  // namespace gemma_sft
