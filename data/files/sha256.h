// SHA-256 of bytes and of files, as 64 lower-case hex digits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace gemma_sft {

std::string sha256_hex(std::string_view bytes);

// Reads the file in blocks of a megabyte. Throws Error(kIo) when it cannot be read. `before_block` is called ahead of
// each block: what it throws ends the reading.
std::string sha256_file(const std::filesystem::path& path, const std::function<void()>& before_block = nullptr);

// Digest of a stream of blocks. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(const void* bytes, size_t size);
  std::string hex();  // ends the digest; call once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gemma_sft
