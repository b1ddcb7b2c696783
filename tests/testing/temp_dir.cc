#include "tests/testing/temp_dir.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <system_error>

namespace gemma_sft {

namespace fs = std::filesystem;

TempDir::TempDir() : TempDir(fs::temp_directory_path()) {}

TempDir::TempDir(const fs::path& parent) {
  std::string name = parent / "gemma_sft_test.XXXXXX";
  if (!::mkdtemp(name.data())) throw std::runtime_error("cannot make a temporary folder " + name);
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code error;
  fs::remove_all(path_, error);
  if (error) std::fprintf(stderr, "%s was not removed: %s\n", path_.c_str(), error.message().c_str());
}

fs::path TempDir::write(std::string_view name, std::string_view bytes) const {
  const fs::path path = path_ / name;
  fs::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path.string());
  return path;
}

fs::path memory_folder() {
  const fs::path memory = "/dev/shm";
  return ::access(memory.c_str(), R_OK | W_OK | X_OK) == 0 ? memory : fs::temp_directory_path();
}

std::vector<std::string> TempDir::list() const {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path_)) {
    const bool is_folder = entry.is_directory() && !entry.is_symlink();
    names.push_back(fs::relative(entry.path().parent_path(), path_) / entry.path().filename());
    if (names.back().starts_with("./")) names.back().erase(0, 2);
    if (is_folder) names.back() += '/';
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace gemma_sft
