#include "tests/testing/failing_file_system.h"

#include <utility>

namespace gemma_sft {

namespace fs = std::filesystem;

const char* name_of(FileCall call) {
  switch (call) {
    case FileCall::kCreate: return "create";
    case FileCall::kOpenAppend: return "open_append";
    case FileCall::kAppend: return "append";
    case FileCall::kSync: return "sync";
    case FileCall::kClose: return "close";
    case FileCall::kMakeDirectories: return "make_directories";
    case FileCall::kRename: return "rename";
    case FileCall::kRemove: return "remove";
    case FileCall::kRemoveTree: return "remove_tree";
    case FileCall::kSyncDirectory: return "sync_directory";
    case FileCall::kTruncate: return "truncate";
    case FileCall::kRequireSpace: return "require_space";
  }
  return "?";
}

struct FailingFileSystem::State {
  Fault fault;
  std::vector<FileCallRecord> calls;
  bool has_failed = false;

  bool fails_now() const {
    const auto index = static_cast<int64_t>(calls.size()) - 1;
    return fault.call >= 0 && (fault.kind == FaultKind::kOnce ? index == fault.call : index >= fault.call);
  }

  // Writes the call down; throws when it is to fail. `cut` does what a failing call still does.
  template <typename Cut>
  void enter(FileCall call, const fs::path& path, uint64_t bytes, const Cut& cut) {
    calls.push_back({call, path, bytes});
    if (!fails_now()) return;
    const bool is_first = !std::exchange(has_failed, true);
    if (is_first) cut();
    if (fault.kind == FaultKind::kCrash) throw SimulatedCrash{calls.back()};
    throw file_error(name_of(call), path, fault.error_number, bytes);
  }

  void enter(FileCall call, const fs::path& path, uint64_t bytes = 0) {
    enter(call, path, bytes, [] {});
  }
};

class FailingFileSystem::File : public WritableFile {
 public:
  File(std::shared_ptr<State> state, fs::path path, std::unique_ptr<WritableFile> real)
      : state_(std::move(state)), path_(std::move(path)), real_(std::move(real)) {}

  using WritableFile::append;
  void append(const void* bytes, size_t size) override {
    state_->enter(FileCall::kAppend, path_, size, [&] {
      real_->append(bytes, static_cast<size_t>(static_cast<double>(size) * state_->fault.written_fraction));
    });
    real_->append(bytes, size);
  }
  void sync() override {
    state_->enter(FileCall::kSync, path_);
    real_->sync();
  }
  void close() override {
    state_->enter(FileCall::kClose, path_);
    real_->close();
  }

 private:
  std::shared_ptr<State> state_;
  fs::path path_;
  std::unique_ptr<WritableFile> real_;
};

FailingFileSystem::FailingFileSystem(Fault fault, FileSystem& real) : state_(std::make_shared<State>()), real_(real) {
  state_->fault = fault;
}

FailingFileSystem::~FailingFileSystem() = default;

const std::vector<FileCallRecord>& FailingFileSystem::calls() const { return state_->calls; }

bool FailingFileSystem::has_failed() const { return state_->has_failed; }

std::vector<std::string> FailingFileSystem::journal() const {
  std::vector<std::string> lines;
  for (const FileCallRecord& call : state_->calls) {
    lines.push_back(std::string(name_of(call.call)) + " " + call.path.filename().string());
  }
  return lines;
}

std::unique_ptr<WritableFile> FailingFileSystem::create(const fs::path& path) {
  state_->enter(FileCall::kCreate, path);
  return std::make_unique<File>(state_, path, real_.create(path));
}

std::unique_ptr<WritableFile> FailingFileSystem::open_append(const fs::path& path) {
  state_->enter(FileCall::kOpenAppend, path);
  return std::make_unique<File>(state_, path, real_.open_append(path));
}

void FailingFileSystem::make_directories(const fs::path& path) {
  state_->enter(FileCall::kMakeDirectories, path);
  real_.make_directories(path);
}

void FailingFileSystem::rename(const fs::path& from, const fs::path& to) {
  state_->enter(FileCall::kRename, to);
  real_.rename(from, to);
}

void FailingFileSystem::remove(const fs::path& path) {
  state_->enter(FileCall::kRemove, path);
  real_.remove(path);
}

void FailingFileSystem::remove_tree(const fs::path& path) {
  state_->enter(FileCall::kRemoveTree, path);
  real_.remove_tree(path);
}

void FailingFileSystem::sync_directory(const fs::path& path) {
  state_->enter(FileCall::kSyncDirectory, path);
  real_.sync_directory(path);
}

void FailingFileSystem::truncate(const fs::path& path, uint64_t size) {
  state_->enter(FileCall::kTruncate, path, size);
  real_.truncate(path, size);
}

void FailingFileSystem::require_space(const fs::path& directory, uint64_t bytes) {
  state_->enter(FileCall::kRequireSpace, directory, bytes);
  real_.require_space(directory, bytes);
}

}  // namespace gemma_sft
