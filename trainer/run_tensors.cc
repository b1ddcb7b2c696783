#include "trainer/run_tensors.h"

#include "trainer/device.h"

namespace gemma_sft {

std::vector<NamedTensor> trained_weights(const Gemma& model) {
  std::vector<NamedTensor> weights;
  for (const Parameter& parameter : model.trainable_parameters()) weights.push_back({parameter.name, parameter.tensor});
  return weights;
}

RunTensors run_tensors(const Gemma& model, const Optimizer& optimizer) {
  RunTensors tensors;
  tensors.weights = trained_weights(model);
  for (const OptimizerMoments& moments : optimizer.moments()) {
    tensors.moments.push_back({"exp_avg." + moments.name, moments.exp_avg});
    tensors.moments.push_back({"exp_avg_sq." + moments.name, moments.exp_avg_sq});
    tensors.moments.push_back({"step." + moments.name, moments.step});
  }
  const c10::Device device = model.options().device;
  tensors.random.push_back({"cpu", random_state(c10::Device(c10::kCPU))});
  if (!device.is_cpu()) tensors.random.push_back({"cuda", random_state(device)});
  return tensors;
}

void restore_checkpoint(const std::filesystem::path& checkpoint, Gemma& model, Optimizer& optimizer) {
  RunTensors tensors = run_tensors(model, optimizer);
  read_checkpoint(checkpoint, tensors);
  for (const NamedTensor& state : tensors.random) {
    set_random_state(state.name == "cpu" ? c10::Device(c10::kCPU) : model.options().device, state.tensor);
  }
}

}  // namespace gemma_sft
