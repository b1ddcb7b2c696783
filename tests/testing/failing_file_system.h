// A FileSystem that passes calls on to another one, writes them down, and makes the n-th one fail.
//
// The way to test code that writes: first run it with no fault and count the calls; then run it once for every call
// with that call failing, and check what is left on the disk. A fault of kind kCrash ends the program, as far as the
// tested code can see: that call and all later ones throw SimulatedCrash and do nothing, so that no cleaning up happens
// either.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/files/file_system.h"

namespace gemma_sft {

enum class FileCall {
  kCreate,
  kOpenAppend,
  kAppend,
  kSync,
  kClose,
  kMakeDirectories,
  kRename,
  kRemove,
  kRemoveTree,
  kSyncDirectory,
  kTruncate,
  kRequireSpace,
};

const char* name_of(FileCall call);  // "create", "append", ...

// One call, in the order in which they came.
struct FileCallRecord {
  FileCall call;
  std::filesystem::path path;  // of the file or folder; for rename the new name
  uint64_t bytes = 0;          // appended, truncated to or required
};

enum class FaultKind {
  kOnce,       // this call fails, later ones work again
  kFromNowOn,  // this call and all later ones fail
  kCrash,      // see above
};

struct Fault {
  int64_t call = -1;  // index of the call that fails, from 0; -1: none
  FaultKind kind = FaultKind::kOnce;
  int error_number = 28;  // ENOSPC; what the Error says (not for kCrash)
  // Of a failing append: how much of it reaches the file, as a write cut short would leave it.
  double written_fraction = 0;
};

// Not an Error and not a std::exception, so that no handler for failures takes it for one.
struct SimulatedCrash {
  FileCallRecord at;
};

// Not thread-safe.
class FailingFileSystem : public FileSystem {
 public:
  explicit FailingFileSystem(Fault fault = {}, FileSystem& real = real_file_system());
  ~FailingFileSystem() override;

  const std::vector<FileCallRecord>& calls() const;
  bool has_failed() const;  // the fault came to pass
  // The journal in short, one "call name" per entry: "create a.bin", "append a.bin", "sync a.bin", ...
  std::vector<std::string> journal() const;

  std::unique_ptr<WritableFile> create(const std::filesystem::path& path) override;
  std::unique_ptr<WritableFile> open_append(const std::filesystem::path& path) override;
  void make_directories(const std::filesystem::path& path) override;
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override;
  void remove(const std::filesystem::path& path) override;
  void remove_tree(const std::filesystem::path& path) override;
  void sync_directory(const std::filesystem::path& path) override;
  void truncate(const std::filesystem::path& path, uint64_t size) override;
  void require_space(const std::filesystem::path& directory, uint64_t bytes) override;

 private:
  struct State;
  class File;

  std::shared_ptr<State> state_;
  FileSystem& real_;
};

}  // namespace gemma_sft
