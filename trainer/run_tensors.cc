#include "trainer/run_tensors.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "configs/error.h"
#include "model/finite.h"
#include "trainer/device.h"

namespace gemma_sft {

std::vector<NamedTensor> trained_weights(const Gemma& model) {
  std::vector<NamedTensor> weights;
  for (const Parameter& parameter : model.trainable_parameters()) weights.push_back({parameter.name, parameter.tensor});
  return weights;
}

std::optional<std::string> find_not_finite(const RunTensors& tensors) {
  for (const std::vector<NamedTensor>* group : {&tensors.weights, &tensors.moments}) {
    for (const NamedTensor& entry : *group) {
      if (!is_finite(entry.tensor)) return entry.name;
    }
  }
  return std::nullopt;
}

RunTensors run_tensors(const Gemma& model, const Optimizer& optimizer) {
  RunTensors tensors;
  tensors.weights = trained_weights(model);
  for (const OptimizerMoments& moments : optimizer.moments()) {
    tensors.moments.push_back({"exp_avg." + moments.name, moments.exp_avg});
    tensors.moments.push_back({"exp_avg_sq." + moments.name, moments.exp_avg_sq});
    tensors.moments.push_back({"step." + moments.name, moments.step});
  }
  tensors.random = random_states(model.options().device);
  return tensors;
}

std::vector<NamedTensor> random_states(c10::Device device) {
  std::vector<NamedTensor> states = {{"cpu", random_state(c10::Device(c10::kCPU))}};
  if (!device.is_cpu()) states.push_back({"cuda", random_state(device)});
  return states;
}

void set_random_states(c10::Device device, const std::vector<NamedTensor>& states) {
  for (const NamedTensor& state : states) {
    set_random_state(state.name == "cpu" ? c10::Device(c10::kCPU) : device, state.tensor);
  }
}

void restore_checkpoint(const std::filesystem::path& checkpoint, Gemma& model, Optimizer& optimizer) {
  RunTensors tensors = run_tensors(model, optimizer);
  read_checkpoint(checkpoint, tensors);
  try {
    set_random_states(model.options().device, tensors.random);
  } catch (const c10::Error& error) {
    throw Error(ErrorKind::kCheckpoint,
                fmt::format("{}: holds no state of a random number generator: {}; move it away to continue from an "
                            "earlier one",
                            checkpoint.string(), error.what_without_backtrace()));
  }
}

}  // namespace gemma_sft
