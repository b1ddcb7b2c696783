// The AdamW update of many tensors in few launches, through the kernels of model/gpu/gpu_kernels.h: clipping, skipping
// and, for bf16 weights, rounding at random happen as the weights pass by.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace gemma_sft {

// What one parameter's update reads and writes; all of the weight's dtype, fp32 or bf16, and contiguous.
struct AdamWTensors {
  at::Tensor weight, gradient, mean, square;
  at::Tensor step;  // fp32 scalar: updates made, this one included
  double weight_decay = 0;
  uint64_t random_key = 0;
};

struct AdamWStep {
  double rate = 0, beta1 = 0, beta2 = 0, epsilon = 0;
  at::Tensor divisor;       // fp32 scalar: gradients are divided by it
  at::Tensor skip;          // fp32 scalar: 1 leaves everything as it is
  bool stochastic = false;  // bf16 weights are rounded up or down at random, right on average
};

// `parameters` have one dtype and device. On the CPU the work is spread over LibTorch's threads.
void fused_adamw(const std::vector<AdamWTensors>& parameters, const AdamWStep& step);

// A key for random numbers, mixed from a seed, a step and a parameter's place.
uint64_t adamw_random_key(uint64_t seed, int64_t step, size_t parameter);

}  // namespace gemma_sft
