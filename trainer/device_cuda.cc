#include <ATen/Context.h>
#include <ATen/ops/ones.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <optional>

#include "configs/error.h"
#include "trainer/device.h"
#include "trainer/gpu_architectures.h"
#include "trainer/process_memory.h"

namespace gemma_sft {
namespace {

cudaDeviceProp device_properties(c10::Device device) {
  cudaDeviceProp properties;
  C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, device.index()));
  return properties;
}

// Why this build cannot run on the GPU. Our own kernels know the architectures that they were compiled for; that
// LibTorch has code for it, only running one of its kernels tells for sure.
std::optional<std::string> find_problem(c10::Device device) {
  try {
    const cudaDeviceProp properties = device_properties(device);
    if (!runs_on(GEMMA_SFT_CUDA_ARCHITECTURES, {properties.major, properties.minor})) {
      return fmt::format(
          "it was compiled for compute capability {}; build it with "
          "-DCMAKE_CUDA_ARCHITECTURES={}{}, if LibTorch supports that",
          describe_architectures(GEMMA_SFT_CUDA_ARCHITECTURES), properties.major, properties.minor);
    }
    if (at::ones({2}, at::TensorOptions().device(device)).sum().item<float>() == 2.0f) return std::nullopt;
    return "a sum on it came out wrong";
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
}

std::string name_and_capability(c10::Device device) {
  const cudaDeviceProp properties = device_properties(device);
  return fmt::format("{}, compute capability {}.{}", properties.name, properties.major, properties.minor);
}

c10::Device require_gpu(const std::string& name, int index) {
  const int count = c10::cuda::device_count();
  if (count == 0) {
    throw Error(
        ErrorKind::kUsage,
        fmt::format("--device {}: no GPU can be used here (is there one, does nvidia-smi list it, is the driver new "
                    "enough for CUDA 13?); use --device cpu",
                    name));
  }
  if (index >= count) {
    throw Error(ErrorKind::kUsage,
                fmt::format("--device {}: there are {} GPUs here, cuda:0 to cuda:{}", name, count, count - 1));
  }
  const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
  if (const auto problem = find_problem(device)) {
    throw Error(ErrorKind::kUsage, fmt::format("--device {}: {} cannot run this build: {}; use --device cpu", name,
                                               name_and_capability(device), *problem));
  }
  c10::cuda::set_device(device.index());
  // fp32 is fp32, whatever TORCH_ALLOW_TF32_CUBLAS_OVERRIDE says, and sums of bf16 products are kept in fp32 to their
  // end.
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowBF16ReductionCuBLAS(false);
  return device;
}

}  // namespace

c10::Device choose_device(const std::string& name) {
  const c10::Device cpu(c10::kCPU);
  if (name == "cpu") return cpu;
  if (name == "cuda") return require_gpu(name, 0);
  if (name == "auto") {
    const c10::Device first(c10::kCUDA, 0);
    if (c10::cuda::device_count() == 0 || find_problem(first)) return cpu;
    return require_gpu("cuda:0", 0);
  }
  int index = -1;
  const char* end = name.data() + name.size();
  if (name.starts_with("cuda:")) {
    const auto [rest, error] = std::from_chars(name.data() + 5, end, index);
    if (error == std::errc() && rest == end && index >= 0) return require_gpu(name, index);
  }
  throw Error(ErrorKind::kUsage, fmt::format("--device {}: expected auto, cpu, cuda or cuda:N", name));
}

std::string describe_device(c10::Device device) {
  if (device.is_cpu()) return "cpu";
  return fmt::format("{} ({})", device.str(), device_properties(device).name);
}

int64_t peak_memory_bytes(c10::Device device) {
  if (device.is_cpu()) return peak_resident_bytes();
  return c10::cuda::CUDACachingAllocator::getDeviceStats(device.index()).allocated_bytes[0].peak;
}

int64_t free_memory_bytes(c10::Device device) {
  if (device.is_cpu()) return available_memory_bytes();
  size_t free = 0, total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  return static_cast<int64_t>(free) + stats.reserved_bytes[0].current - stats.allocated_bytes[0].current;
}

void wait_for_device(c10::Device device) {
  if (device.is_cuda()) c10::cuda::device_synchronize();
}

void use_deterministic_kernels() {
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*replace=*/0);  // read by cuBLAS when it starts
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);  // as in device_cpu.cc
  at::globalContext().setDeterministicCuDNN(true);
  at::globalContext().setBenchmarkCuDNN(false);
}

}  // namespace gemma_sft
