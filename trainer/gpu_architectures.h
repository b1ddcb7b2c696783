// Which GPUs the kernels of a build run on. No torch, no CUDA.
#pragma once

#include <string>

namespace gemma_sft {

struct Capability {
  int major = 0, minor = 0;  // 9.0: H100 and H200
};

// `compiled` as CMAKE_CUDA_ARCHITECTURES, separated by commas: "80-real,90-real,120". Machine code for X.Y runs on
// devices X.Z with Z >= Y; an entry without "-real" carries PTX too, which every newer device compiles for itself; a
// letter behind the number ("90a") binds to that very device.
bool runs_on(const std::string& compiled, Capability device);

// "8.0, 9.0 and 12.0 or newer"
std::string describe_architectures(const std::string& compiled);

}  // namespace gemma_sft
