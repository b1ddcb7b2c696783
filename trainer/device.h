// The device a run works on. Twin files: device_cpu.cc, and device_cuda.cc in a build with GEMMA_SFT_CUDA; what is the
// same in both is in device.cc.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <string>

namespace gemma_sft {

// auto | cpu | cuda | cuda:N. `auto` is the first GPU where there is one that this build has code for, else the CPU.
// Throws Error(kUsage): not one of these; CUDA asked for and not there, with what is missing and what to do.
c10::Device choose_device(const std::string& name);

std::string describe_device(c10::Device device);  // "cpu", "cuda:0 (NVIDIA H100 80GB HBM3)"

// Most memory this process used, in bytes: resident on the CPU, allocated by LibTorch on a GPU.
int64_t peak_memory_bytes(c10::Device device);

// Memory that can still be had, in bytes; on a GPU that of the whole device, LibTorch's unused blocks included.
int64_t free_memory_bytes(c10::Device device);

void wait_for_device(c10::Device device);

// State of the random number generator that the device's kernels draw from (LoRA dropout): bytes [n] on the CPU.
at::Tensor random_state(c10::Device device);
void set_random_state(c10::Device device, const at::Tensor& state);

// Must come before the first use of the device. Kernels without a deterministic variant then throw.
void use_deterministic_kernels();

}  // namespace gemma_sft
