// Hugging Face model folders in and out.
//
// In: model.safetensors, or model.safetensors.index.json with its shards; bf16, fp16 and fp32; each tensor checked by
// name and shape: missing is an error, extra is an error, except the vision tensors of image-text checkpoints (carried
// byte-equal into the result) and a lm_head.weight equal to the tied embedding. Out: config.json,
// generation_config.json, safetensors shards of at most 5 GB with index, tokenizer files byte-equal.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "configs/run_config.h"
#include "data/files/file_system.h"
#include "model/adapter_config.h"
#include "model/gemma.h"
#include "model/model_init.h"
#include "model/weight_files.h"

namespace gemma_sft {

// The model that config.json describes, with every weight of the folder converted to its storage dtype. Throws
// Error(kModel), before room is made for the model, with all names that are missing, extra or of another shape.
// `before_tensor` is called ahead of each one: what it throws ends the loading.
Gemma load_gemma(const std::filesystem::path& folder, const GemmaOptions& options = {},
                 const std::function<void()>& before_tensor = nullptr);

struct ExportOptions {
  ModelDtype dtype = ModelDtype::kBf16;
  uint64_t max_shard_bytes = 5'000'000'000;
  bool merge_lora = false;                        // base + adapter; otherwise the base weights as they are
  std::function<void()> before_tensor = nullptr;  // called ahead of each tensor: what it throws ends the export
};

// SHA-256 of every file written, by name. Writes into `destination` (made by the caller, inside a temporary folder);
// files are fsynced. `base_folder` gives config.json, generation_config.json, tokenizer files and vision tensors.
// Throws Error(kNonFinite) rather than write a weight that is NaN or infinite; so does export_adapter.
std::map<std::string, std::string> export_model(const Gemma& model, const std::filesystem::path& base_folder,
                                                const std::filesystem::path& destination, FileSystem& files,
                                                const ExportOptions& options);

// PEFT folder: adapter_config.json + adapter_model.safetensors ("base_model.model.<path>.lora_A.weight", fp32).
std::map<std::string, std::string> export_adapter(const Gemma& model, const AdapterBase& base,
                                                  const std::filesystem::path& destination, FileSystem& files);

// The weights of a PEFT folder into a model that has LoRA on the same layers and of the same rank (see
// load_adapter_config in model/adapter_config.h); fp32, bf16 and fp16 are read. Throws Error(kModel) with all names
// that are missing, extra or of another shape.
void load_adapter(Gemma& model, const std::filesystem::path& folder);

// Gives a model without LoRA that of a PEFT folder: its layers (load_adapter_config) and its weights.
void add_adapter(Gemma& model, const std::filesystem::path& folder);

}  // namespace gemma_sft
