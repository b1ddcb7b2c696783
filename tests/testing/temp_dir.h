// An empty folder of its own for one test, removed with everything in it at the end.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace gemma_sft {

class TempDir {
 public:
  // Below the system's folder for temporary files, or below `parent`.
  TempDir();
  explicit TempDir(const std::filesystem::path& parent);
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  // Writes a file below the folder (and the folders on the way) and gives its path.
  std::filesystem::path write(std::string_view name, std::string_view bytes) const;
  // Everything below the folder, as relative paths in order; folders end with '/'.
  std::vector<std::string> list() const;

 private:
  std::filesystem::path path_;
};

// Where files live in memory, for suites that make and sync thousands of them; the system's folder for temporary files
// where there is no such place.
std::filesystem::path memory_folder();

}  // namespace gemma_sft
