// The file layer: every byte the program writes goes through `FileSystem`, so that a test can make any call fail, cut
// it short or record it. Reads of inputs do not need it; reads of our own checkpoints do not either.
//
// No memory-mapped writes: a full disk would be a SIGBUS there, and is an errno here. Errors are Error(kIo)
// (kOutOfSpace is not a kind of its own) and name path, operation, errno text, bytes needed and bytes free. An fsync
// that failed is never tried again. EINTR and short writes are handled inside and are not visible to callers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "configs/error.h"

namespace gemma_sft {

// A file being written. Owned by the caller; closing without `sync()` promises nothing. One thread at a time.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual void append(const void* bytes, size_t size) = 0;
  void append(std::string_view text) { append(text.data(), text.size()); }
  virtual void sync() = 0;   // fsync
  virtual void close() = 0;  // reports the error that a destructor would swallow
};

// The operating system's calls, one method each. Thread-safe unless a test double says otherwise.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual std::unique_ptr<WritableFile> create(const std::filesystem::path& path) = 0;  // in place of what is there
  virtual std::unique_ptr<WritableFile> open_append(const std::filesystem::path& path) = 0;  // no link, no pipe
  virtual void make_directories(const std::filesystem::path& path) = 0;  // and syncs the parents it made
  virtual void rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  virtual void remove(const std::filesystem::path& path) = 0;       // one file; absent is fine
  virtual void remove_tree(const std::filesystem::path& path) = 0;  // never follows symlinks
  virtual void sync_directory(const std::filesystem::path& path) = 0;
  virtual void truncate(const std::filesystem::path& path, uint64_t size) = 0;  // and fsyncs the file
  // Reserves room before a large write; throws like a write when there is not enough.
  virtual void require_space(const std::filesystem::path& directory, uint64_t bytes) = 0;
};

// The real one. Lives for the whole program.
FileSystem& real_file_system();

// Create, write, fsync, close; no rename and no fsync of the folder: for files of a folder that nobody sees yet.
void write_new_file(FileSystem& files, const std::filesystem::path& path, std::string_view bytes);

// Temporary name in the same folder (".<name>.tmp"), write, fsync, rename, fsync of the folder: after it returns,
// `path` holds `bytes` even if the power fails; if it throws before the rename, `path` is as it was. One writer of a
// path at a time.
void write_file_durably(FileSystem& files, const std::filesystem::path& path, std::string_view bytes);

// Whole regular file as a string. Throws Error(kIo) naming the path; `max_bytes` guards against surprises.
std::string read_file(const std::filesystem::path& path, uint64_t max_bytes = UINT64_MAX);

// Gives what is somebody else's another name beside its own, the first of <path>.aside-1, -2, ... that is free: that
// one.
std::filesystem::path move_aside(FileSystem& files, const std::filesystem::path& path);

// `path` from the root on, without ".", ".." and a separator at its end, so that filename() is its last name and
// parent_path() the folder of that; of "out/" itself they are "" and "out". Empty: the working directory. By its text
// alone: no symbolic link is followed, and "link/.." is the folder that the link lies in.
std::filesystem::path plain_path(const std::filesystem::path& path);

// The Error(kIo) for a system call that failed: path, operation, errno text, bytes needed (when given) and free (then,
// and on a full disk or quota), remedy.
Error file_error(const std::string& operation, const std::filesystem::path& path, int error_number,
                 uint64_t bytes_needed = 0);

}  // namespace gemma_sft
