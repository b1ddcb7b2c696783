// The real FileSystem with a function called before every file is created: a test can look which thread writes, hold it
// up, or make it fail by throwing.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <utility>

#include "data/files/file_system.h"

namespace gemma_sft {

// Thread-safe where the function is.
class HookedFileSystem : public FileSystem {
 public:
  explicit HookedFileSystem(std::function<void(const std::filesystem::path&)> before_create)
      : before_create_(std::move(before_create)) {}

  std::unique_ptr<WritableFile> create(const std::filesystem::path& path) override {
    before_create_(path);
    return real_.create(path);
  }
  std::unique_ptr<WritableFile> open_append(const std::filesystem::path& path) override {
    return real_.open_append(path);
  }
  void make_directories(const std::filesystem::path& path) override { real_.make_directories(path); }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override { real_.rename(from, to); }
  void remove(const std::filesystem::path& path) override { real_.remove(path); }
  void remove_tree(const std::filesystem::path& path) override { real_.remove_tree(path); }
  void sync_directory(const std::filesystem::path& path) override { real_.sync_directory(path); }
  void truncate(const std::filesystem::path& path, uint64_t size) override { real_.truncate(path, size); }
  void require_space(const std::filesystem::path& directory, uint64_t bytes) override {
    real_.require_space(directory, bytes);
  }

 private:
  std::function<void(const std::filesystem::path&)> before_create_;
  FileSystem& real_ = real_file_system();
};

}  // namespace gemma_sft
