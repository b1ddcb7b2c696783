// A regular file opened for reading at any place. Immutable, safe to share between threads (reads are preads).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace gemma_sft {

class InputFile {
 public:
  // Throws Error(kIo) when the file cannot be opened or is not a regular file (a pipe cannot be read a second time).
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  uint64_t size() const { return size_; }  // when it was opened
  // Up to `size` bytes from `offset` on; fewer only at the end of the file. Throws Error(kIo).
  size_t read_some(uint64_t offset, void* destination, size_t size) const;

 private:
  std::filesystem::path path_;
  uint64_t size_ = 0;
  int descriptor_ = -1;
};

}  // namespace gemma_sft
