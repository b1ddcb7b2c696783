// AdamW over the trained parameters of a model, through LibTorch's fused kernel (CPU and CUDA).
//
//   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w -= lr * weight_decay * w
//   w -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
// The moments have their parameter's dtype: fp32 for fp32 masters and for LoRA, bf16 where the weights themselves are
// bf16 (as torch.optim.AdamW and so transformers' pure bf16 do). Weight decay applies to the parameters that say so
// (Parameter::decays: no norms, no biases). t counts the updates made, per parameter.
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

  // One update from the accumulated gradients, each divided by `gradient_divisor` on the way (inside the kernel). Every
  // parameter must have a gradient.
  void step(double rate, double gradient_divisor);
  void drop_gradients();

  const std::vector<Parameter>& parameters() const { return parameters_; }
  // The live tensors: copying into them restores a state.
  std::vector<OptimizerMoments> moments() const;

 private:
  // What one call of the fused kernel takes: one weight decay, one dtype, one device.
  struct Group {
    double weight_decay = 0;
    std::vector<at::Tensor> parameters, exp_avgs, exp_avg_sqs, steps;
  };
  std::vector<Parameter> parameters_;
  OptimizerOptions options_;
  std::vector<Group> groups_;
  std::vector<std::pair<size_t, size_t>> places_;  // of parameter i: (group, index in it)
};

}  // namespace gemma_sft
