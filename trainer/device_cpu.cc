#include <ATen/Context.h>
#include <fmt/format.h>

#include "configs/error.h"
#include "trainer/device.h"
#include "trainer/process_memory.h"

namespace gemma_sft {

c10::Device choose_device(const std::string& name) {
  if (name == "auto" || name == "cpu") return c10::Device(c10::kCPU);
  if (name == "cuda" || name.starts_with("cuda:")) {
    throw Error(ErrorKind::kUsage,
                fmt::format("--device {}: this build has no CUDA; build one with ./bootstrap.sh build --cuda (or cmake "
                            "-DGEMMA_SFT_CUDA=ON), or use --device cpu",
                            name));
  }
  throw Error(ErrorKind::kUsage, fmt::format("--device {}: expected auto, cpu, cuda or cuda:N", name));
}

std::string describe_device(c10::Device) { return "cpu"; }

int64_t peak_memory_bytes(c10::Device) { return peak_resident_bytes(); }

int64_t free_memory_bytes(c10::Device) { return available_memory_bytes(); }

void wait_for_device(c10::Device) {}

void use_deterministic_kernels() {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  // LibTorch would also write NaN into all memory that it allocates, to find what is read before it is written.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

}  // namespace gemma_sft
