#include "model/gpu/fused_adamw.h"

#include <c10/core/DeviceGuard.h>

#include <algorithm>

#include "configs/error.h"
#include "model/cpu_rows.h"
#include "model/gpu/fused.h"

namespace gemma_sft {
namespace {

void update(const std::vector<AdamWTensors>& parameters, size_t begin, size_t end, const AdamWStep& step) {
  AdamWUpdate update;
  update.rate = step.rate;
  update.beta1 = step.beta1;
  update.beta2 = step.beta2;
  update.epsilon = step.epsilon;
  update.divisor = step.divisor.const_data_ptr<float>();
  update.skip = step.skip.const_data_ptr<float>();
  update.stochastic = step.stochastic;
  for (size_t i = begin; i < end; ++i) {
    const AdamWTensors& given = parameters[i];
    update.tensors[update.count++] = {.weight = given.weight.mutable_data_ptr(),
                                      .gradient = given.gradient.const_data_ptr(),
                                      .mean = given.mean.mutable_data_ptr(),
                                      .square = given.square.mutable_data_ptr(),
                                      .step = given.step.const_data_ptr<float>(),
                                      .count = given.weight.numel(),
                                      .weight_decay = given.weight_decay,
                                      .random_key = given.random_key};
  }
  const at::Tensor& first = parameters[begin].weight;
  with_fused(first, [&](const auto& kernels, auto) { kernels.adamw(update, fused_stream(first)); });
}

}  // namespace

void fused_adamw(const std::vector<AdamWTensors>& parameters, const AdamWStep& step) {
  if (parameters.empty()) return;
  for (const AdamWTensors& given : parameters) {
    for (const at::Tensor& tensor : {given.weight, given.gradient, given.mean, given.square}) {
      if (!tensor.is_contiguous() || tensor.numel() != given.weight.numel() ||
          tensor.scalar_type() != given.weight.scalar_type()) {
        throw Error(ErrorKind::kInternal, "adamw: weight, gradient and moments must be alike and contiguous");
      }
    }
  }
  if (parameters.front().weight.is_cpu()) {
    const auto count = static_cast<int64_t>(parameters.size());
    for_rows(count, parameters.front().weight.numel(), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        update(parameters, static_cast<size_t>(i), static_cast<size_t>(i) + 1, step);
    });
    return;
  }
  const c10::DeviceGuard guard(parameters.front().weight.device());
  for (size_t begin = 0; begin < parameters.size(); begin += AdamWUpdate::kMostTensors) {
    update(parameters, begin, std::min<size_t>(begin + AdamWUpdate::kMostTensors, parameters.size()), step);
  }
}

uint64_t adamw_random_key(uint64_t seed, int64_t step, size_t parameter) {
  uint64_t key = seed;
  for (const uint64_t part : {static_cast<uint64_t>(step), static_cast<uint64_t>(parameter)}) {
    key = (key ^ part) * 0x9e3779b97f4a7c15ull;
    key ^= key >> 32;
  }
  return key;
}

}  // namespace gemma_sft
