// In which numbers a model works, and the digest of a model folder.
#pragma once

#include <c10/core/Device.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <future>
#include <optional>
#include <string>

#include "configs/run_config.h"
#include "model/gemma.h"

namespace gemma_sft {

// The precision asked for, else bf16_mixed on a GPU and fp32 on the CPU.
Precision choose_precision(const std::optional<Precision>& asked, c10::Device device);

// Of a model that is trained as a whole. fp32: everything fp32. bf16: everything bf16. bf16_mixed: computes in bf16,
// stored in fp32.
GemmaOptions model_options(Precision precision, c10::Device device);

// Of a model with an adapter (always fp32): computes in the same dtypes, but the frozen base in `folder` keeps that of
// its files, fp32 where they mix several. bf16 stores it in bf16. Reads headers; throws Error(kModel).
GemmaOptions frozen_model_options(Precision precision, c10::Device device, const std::filesystem::path& folder,
                                  const GemmaConfig& config);

// One SHA-256 over config.json and the safetensors files of a model folder, by name and content. `before_block` is
// called ahead of each block of a file: what it throws ends the reading.
std::string model_sha256(const std::filesystem::path& folder, const std::function<void()>& before_block = nullptr);

// The same, read on a thread of its own from when it is made.
class ModelDigest {
 public:
  explicit ModelDigest(std::filesystem::path folder);
  ~ModelDigest();  // does not wait for the rest of the files
  // Waits; call it once. Throws what model_sha256 throws, and StopRequested at a stop signal.
  std::string get();

 private:
  std::atomic<bool> dropped_ = false;
  std::future<std::string> digest_;
};

}  // namespace gemma_sft
