// The safetensors of a Hugging Face model folder, opened and checked against a GemmaConfig; and how a folder is
// written. No torch here.
//
// Reading: model.safetensors, or model.safetensors.index.json with its shards. Text tensors of image-text checkpoints
// lie under "language_model.model." (the published files) or "model.language_model." (what some tools write); here they
// have the names of the text-only model ("model.layers.0...").
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "configs/run_config.h"
#include "data/files/file_system.h"
#include "data/files/safetensors.h"
#include "model/gemma_config.h"

namespace gemma_sft {

// The published names of dtypes: TensorDtype for files, "bfloat16" for config.json.
TensorDtype tensor_dtype(ModelDtype dtype);
const char* config_dtype_name(ModelDtype dtype);

struct NamedShape {
  std::string name;
  std::vector<int64_t> shape;
};

// Every weight of the text model, in Hugging Face's order. Norm weights are the one-dimensional ones.
std::vector<NamedShape> text_tensors(const GemmaConfig& config);

// Immutable, safe to share between threads.
class WeightFiles {
 public:
  struct Tensor {
    const SafetensorsFile* file = nullptr;
    const TensorInfo* info = nullptr;
    void read(void* destination) const { file->read(*info, destination); }
    // Some of the tensor's bytes: [offset, offset + size).
    void read(uint64_t offset, uint64_t size, void* destination) const;
  };

  // Checks every tensor by name, shape and dtype; throws Error(kModel) with all names that are missing, extra or of
  // another shape. A lm_head.weight is accepted where its bytes equal the embedding's.
  WeightFiles(const std::filesystem::path& folder, const GemmaConfig& config);

  Tensor text(const std::string& name) const;  // by the text-only model's name
  std::string name_in_files(const std::string& name) const;
  const std::vector<Tensor>& carried() const { return carried_; }  // vision tensors, in file order
  ModelDtype dtype() const { return dtype_; }                      // of most of the text model's numbers

 private:
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Tensor> text_;
  std::vector<Tensor> carried_;
  std::string prefix_;  // stands for "model." in the files
  ModelDtype dtype_ = ModelDtype::kBf16;
};

// dtype of the base files: that of most of the text model's numbers. Reads headers only.
ModelDtype files_dtype(const std::filesystem::path& folder);

// Writes `tensors` in their order as model.safetensors, or as shards of at most `max_shard_bytes` each (a larger tensor
// gets a shard of its own) with model.safetensors.index.json. SHA-256 by file name. Files are fsynced.
std::map<std::string, std::string> write_weight_files(FileSystem& files, const std::filesystem::path& destination,
                                                      const std::vector<TensorSource>& tensors,
                                                      uint64_t max_shard_bytes);

}  // namespace gemma_sft
