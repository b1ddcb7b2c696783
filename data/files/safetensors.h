// The safetensors format: [8 bytes little-endian header length][JSON header][tensor bytes]. Reader and writer of our
// own, with checked arithmetic; no torch here, so checkpoints can be verified by the torch-free program. Format:
// https://github.com/huggingface/safetensors#format
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/files/file_system.h"
#include "data/files/input_file.h"

namespace gemma_sft {

enum class TensorDtype { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

const char* safetensors_name(TensorDtype dtype);  // "F32", "BF16", ...
uint64_t bytes_per_element(TensorDtype dtype);

// One tensor of a file, as its header describes it; offsets are relative to the end of the header, checked against the
// file.
struct TensorInfo {
  std::string name;
  TensorDtype dtype = TensorDtype::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;

  uint64_t bytes() const { return end - begin; }
};

// A file opened for reading. Immutable after construction, safe to share between threads (reads use pread).
// The constructor checks everything the format demands before anything is allocated by a size from the file: header
// length, duplicate names, dtypes, shape products, no overlap, no hole, exact file size. Throws Error(kModel) naming
// file, tensor and offset. Refuses pickles (.pt, .bin) by content with the way to convert.
class SafetensorsFile {
 public:
  // The reference reader goes up to 100 MB; the Hugging Face Hub accepts 25 MB, so no published model has more.
  static constexpr uint64_t kMaxHeaderBytes = 25'000'000;
  static constexpr size_t kMaxTensors = 100'000;
  static constexpr size_t kMaxDimensions = 64;

  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }               // in file order
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // __metadata__
  const TensorInfo* find(const std::string& name) const;                            // nullptr when absent
  // Reads the tensor's bytes into `destination`, which must hold `info.bytes()`. `info` must be of this file.
  void read(const TensorInfo& info, void* destination) const;

 private:
  InputFile file_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, size_t> index_;
  uint64_t data_start_ = 0;
};

// One tensor to be written: `bytes` is called when its turn comes and gives contiguous little-endian data that stays
// valid until the next call (so that a shard never needs a second copy of all its weights).
struct TensorSource {
  std::string name;
  TensorDtype dtype = TensorDtype::kF32;
  std::vector<int64_t> shape;
  std::function<const void*()> bytes;
};

struct WrittenFile {
  uint64_t bytes = 0;
  std::string sha256;
};

// Writes, fsyncs and closes `path` (no rename: callers write into a temporary folder). Tensors are laid out in the
// given order, the data starts 8-byte aligned, metadata gets {"format":"pt"} unless given. Throws Error(kIo) as the
// file layer does, Error(kInternal) for tensors that the format cannot hold (names twice or reserved, negative or too
// large shapes).
WrittenFile write_safetensors(FileSystem& files, const std::filesystem::path& path,
                              const std::vector<TensorSource>& tensors,
                              std::map<std::string, std::string> metadata = {{"format", "pt"}});

}  // namespace gemma_sft
