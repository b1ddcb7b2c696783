#include "trainer/device.h"

#include <ATen/Context.h>

namespace gemma_sft {

at::Tensor random_state(c10::Device device) { return at::globalContext().defaultGenerator(device).get_state(); }

void set_random_state(c10::Device device, const at::Tensor& state) {
  at::Generator generator = at::globalContext().defaultGenerator(device);
  generator.set_state(state);
}

}  // namespace gemma_sft
