#include "data/files/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "data/files/input_file.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

// Owns a descriptor that nothing was written through, so that an error of close does not matter.
class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

template <typename Call>
auto retry_interrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

// O_NONBLOCK: opening a pipe that nobody reads from must not hang.
int open_descriptor(const fs::path& path, int flags) {
  const int descriptor = retry_interrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK, 0666); });
  if (descriptor < 0) throw file_error("open", path, errno);
  return descriptor;
}

[[noreturn]] void refuse_to_write(const fs::path& path, const char* found) {
  throw Error(ErrorKind::kIo,
              fmt::format("{}: expected a file to write to, found {}; move it away", path.string(), found));
}

// A new file. What has its name already is never written into, for it may be a link, a pipe, or a second name of
// somebody's file: it loses this name.
int create_descriptor(const fs::path& path) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
  for (;;) {
    const int descriptor = retry_interrupted([&] { return ::open(path.c_str(), kFlags, 0666); });
    if (descriptor >= 0) return descriptor;
    if (errno != EEXIST) throw file_error("open", path, errno);
    struct stat status;
    if (::lstat(path.c_str(), &status) == 0 && (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode))) {
      refuse_to_write(path, "a device");  // /dev/null is the whole system's
    }
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw file_error("replace", path, errno);
  }
}

// A file that grows: absent, or a plain file of this folder, or a device such as /dev/stderr.
int append_descriptor(const fs::path& path) {
  const int descriptor = open_descriptor(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW);
  struct stat status;
  const bool is_known = ::fstat(descriptor, &status) == 0;
  const int error = errno;
  if (is_known && (S_ISREG(status.st_mode) || S_ISCHR(status.st_mode))) {
    if (S_ISCHR(status.st_mode)) ::fcntl(descriptor, F_SETFL, O_APPEND);  // without O_NONBLOCK
    return descriptor;
  }
  ::close(descriptor);
  if (!is_known) throw file_error("stat", path, error);
  refuse_to_write(path, S_ISFIFO(status.st_mode) ? "a pipe" : "a device");
}

// A call that a signal interrupted has reported nothing; one that failed may have dropped the dirty pages, so that
// trying again would report success for lost data. Only the first kind is called again.
void sync_descriptor(int descriptor, const fs::path& path) {
  if (retry_interrupted([&] { return ::fsync(descriptor); }) != 0) throw file_error("fsync", path, errno);
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

fs::path temporary_name(const fs::path& path) {
  return folder_of(path) / fmt::format(".{}.tmp", path.filename().string());
}

// Free bytes for an ordinary user on the file system of `path` or of its nearest existing ancestor.
std::optional<uint64_t> find_free_bytes(fs::path path) {
  struct statvfs status;
  while (retry_interrupted([&] { return ::statvfs(path.empty() ? "." : path.c_str(), &status); }) != 0) {
    if (path.empty() || path == path.parent_path()) return std::nullopt;
    path = path.parent_path();
  }
  if (status.f_blocks == 0) return std::nullopt;  // a file system without a size, such as ramfs and some of FUSE
  return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
}

std::string count_bytes(uint64_t bytes) {
  if (bytes < 1'000'000) return fmt::format("{} bytes", bytes);
  return fmt::format("{} bytes ({:.1f} GB)", bytes, static_cast<double>(bytes) / 1e9);
}

class PosixFile : public WritableFile {
 public:
  PosixFile(fs::path path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;
  ~PosixFile() override {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  using WritableFile::append;
  void append(const void* bytes, size_t size) override {
    constexpr size_t kMostAtOnce = size_t{1} << 30;  // Linux transfers at most 0x7ffff000 bytes in one call
    const char* rest = static_cast<const char*>(bytes);
    while (size > 0) {
      const ssize_t count = retry_interrupted([&] { return ::write(descriptor_, rest, std::min(size, kMostAtOnce)); });
      if (count < 0) throw file_error("write", path_, errno, size);
      if (count == 0) throw file_error("write", path_, ENOSPC, size);
      rest += count;
      size -= static_cast<size_t>(count);
    }
  }

  void sync() override { sync_descriptor(descriptor_, path_); }

  void close() override {
    const int descriptor = std::exchange(descriptor_, -1);
    // On Linux the descriptor is gone even after EINTR: a second close could hit another thread's file.
    if (descriptor >= 0 && ::close(descriptor) != 0 && errno != EINTR) throw file_error("close", path_, errno);
  }

 private:
  fs::path path_;
  int descriptor_;
};

// Removes what `folder` holds. Each entry is reached through its folder's descriptor and symbolic links are never
// followed, so that a link planted or swapped in cannot lead outside the tree.
void remove_contents(int folder, const fs::path& path) {
  const int listing = retry_interrupted([&] { return ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (listing < 0) throw file_error("open", path, errno);
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(listing), ::closedir);
  if (!entries) {
    const int error = errno;
    ::close(listing);
    throw file_error("list", path, error);
  }
  std::vector<std::string> names;
  for (errno = 0; const dirent* entry = ::readdir(entries.get()); errno = 0) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (errno != 0) throw file_error("list", path, errno);
  for (const std::string& name : names) {
    if (::unlinkat(folder, name.c_str(), 0) == 0 || errno == ENOENT) continue;
    if (errno != EISDIR && errno != EPERM) throw file_error("remove", path / name, errno);
    const int unlink_error = errno;
    {
      const Descriptor child(retry_interrupted(
          [&] { return ::openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); }));
      if (child.get() < 0) throw file_error("remove", path / name, errno == ENOTDIR ? unlink_error : errno);
      remove_contents(child.get(), path / name);
    }
    if (::unlinkat(folder, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
      throw file_error("remove", path / name, errno);
    }
  }
}

class PosixFileSystem : public FileSystem {
 public:
  std::unique_ptr<WritableFile> create(const fs::path& path) override {
    return std::make_unique<PosixFile>(path, create_descriptor(path));
  }

  std::unique_ptr<WritableFile> open_append(const fs::path& path) override {
    int descriptor = append_descriptor(path);
    if (has_another_name(descriptor)) {
      ::close(descriptor);
      part_from_other_names(path);
      descriptor = append_descriptor(path);
    }
    return std::make_unique<PosixFile>(path, descriptor);
  }

  void make_directories(const fs::path& path) override {
    fs::path made;
    for (const fs::path& part : path) {
      made /= part;
      if (made.empty() || ::mkdir(made.c_str(), 0777) == 0) {
        if (!made.empty()) sync_directory(folder_of(made));
        continue;
      }
      const int error = errno;
      struct stat status;
      if (::stat(made.c_str(), &status) == 0) {
        if (S_ISDIR(status.st_mode)) continue;
        throw file_error("make the folder", made, ENOTDIR);
      }
      throw file_error("make the folder", made, error);
    }
  }

  void rename(const fs::path& from, const fs::path& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) {
      throw file_error(fmt::format("rename {} to this name", from.string()), to, errno);
    }
  }

  void remove(const fs::path& path) override {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw file_error("remove", path, errno);
  }

  void remove_tree(const fs::path& path) override {
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) return;
    if (errno != EISDIR && errno != EPERM) throw file_error("remove", path, errno);
    const int unlink_error = errno;
    {
      const Descriptor folder(
          retry_interrupted([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); }));
      if (folder.get() < 0) throw file_error("remove", path, errno == ENOTDIR ? unlink_error : errno);
      remove_contents(folder.get(), path);
    }
    if (::rmdir(path.c_str()) != 0 && errno != ENOENT) throw file_error("remove", path, errno);
  }

  void sync_directory(const fs::path& path) override {
    const Descriptor folder(open_descriptor(path.empty() ? "." : path, O_RDONLY | O_DIRECTORY));
    // EINVAL: this file system has no fsync for folders, so there is nothing more that could be done.
    if (retry_interrupted([&] { return ::fsync(folder.get()); }) != 0 && errno != EINVAL) {
      throw file_error("fsync", path, errno);
    }
  }

  void truncate(const fs::path& path, uint64_t size) override {
    const Descriptor file(open_descriptor(path, O_WRONLY));
    if (retry_interrupted([&] { return ::ftruncate(file.get(), static_cast<off_t>(size)); }) != 0) {
      throw file_error("truncate", path, errno);
    }
    sync_descriptor(file.get(), path);
  }

  void require_space(const fs::path& directory, uint64_t bytes) override {
    const std::optional<uint64_t> free = find_free_bytes(directory);
    if (free && *free < bytes) throw file_error("reserve space", directory, ENOSPC, bytes);
  }

 private:
  static bool has_another_name(int descriptor) {
    struct stat status;
    return ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) && status.st_nlink > 1;
  }

  // Of a file that has a second name, in a copy made by `cp -al` for instance, this name gets a copy of its own.
  void part_from_other_names(const fs::path& path) {
    const fs::path copy = temporary_name(path);
    write_new_file(*this, copy, read_file(path, std::numeric_limits<uint64_t>::max()));
    rename(copy, path);
    sync_directory(folder_of(path));
  }
};

std::string remedy(int error_number) {
  switch (error_number) {
    case ENOSPC:
    case EDQUOT: return "; free some space or choose another place";
    case EROFS: return "; choose a place that can be written to";
    case EACCES:
    case EPERM: return "; check its owner and permissions";
    case EMFILE:
    case ENFILE: return "; raise the limit of open files (ulimit -n)";
    case EFBIG: return "; raise the limit of a file's size (ulimit -f), or choose another file system";
    case ELOOP: return "; it is a symbolic link that is not followed, or leads to itself: move it away";
    case ENXIO: return "; it is a pipe or a socket: move it away";
    default: return "";
  }
}

}  // namespace

Error file_error(const std::string& operation, const fs::path& path, int error_number, uint64_t bytes_needed) {
  std::string message =
      fmt::format("{}: cannot {}: {}", path.string(), operation, std::generic_category().message(error_number));
  std::string sizes = bytes_needed > 0 ? fmt::format("{} needed", count_bytes(bytes_needed)) : "";
  if (bytes_needed > 0 || error_number == ENOSPC || error_number == EDQUOT) {
    if (const auto free = find_free_bytes(folder_of(path))) {
      sizes += fmt::format("{}{} free", sizes.empty() ? "" : ", ", count_bytes(*free));
    }
  }
  if (!sizes.empty()) message += ": " + sizes;
  return Error(ErrorKind::kIo, message + remedy(error_number), error_number);
}

FileSystem& real_file_system() {
  static PosixFileSystem files;
  return files;
}

void write_new_file(FileSystem& files, const fs::path& path, std::string_view bytes) {
  const std::unique_ptr<WritableFile> file = files.create(path);
  file->append(bytes);
  file->sync();
  file->close();
}

void write_file_durably(FileSystem& files, const fs::path& path, std::string_view bytes) {
  const fs::path temporary = temporary_name(path);
  try {
    write_new_file(files, temporary, bytes);
    files.rename(temporary, path);
  } catch (...) {
    try {
      files.remove(temporary);
    } catch (const Error&) {
      // The first failure is the one to report; the next write of this path truncates the leftover.
    }
    throw;
  }
  files.sync_directory(folder_of(path));
}

fs::path move_aside(FileSystem& files, const fs::path& path) {
  fs::path aside;
  for (int64_t number = 1; aside.empty() || fs::exists(fs::symlink_status(aside)); ++number) {
    aside = path;
    aside += fmt::format(".aside-{}", number);
  }
  files.rename(path, aside);
  files.sync_directory(folder_of(path));
  return aside;
}

fs::path plain_path(const fs::path& path) {
  const fs::path plain = fs::absolute(path.empty() ? fs::path(".") : path).lexically_normal();
  return plain.has_filename() ? plain : plain.parent_path();
}

std::string read_file(const fs::path& path, uint64_t max_bytes) {
  const InputFile file(path);
  if (file.size() > max_bytes) {
    throw Error(ErrorKind::kIo,
                fmt::format("{}: {} bytes long, expected at most {}", path.string(), file.size(), max_bytes));
  }
  std::string bytes;
  // Files of /proc say that they are empty, so the end is where a read gives less than was asked for.
  for (size_t block = std::max<uint64_t>(file.size() + 1, 4096);; block = std::min<size_t>(bytes.size(), 1 << 20)) {
    const size_t old_size = bytes.size();
    bytes.resize(old_size + block);
    bytes.resize(old_size + file.read_some(old_size, bytes.data() + old_size, block));
    if (bytes.size() > max_bytes) {
      throw Error(ErrorKind::kIo, fmt::format("{}: longer than {} bytes", path.string(), max_bytes));
    }
    if (bytes.size() < old_size + block) return bytes;
  }
}

}  // namespace gemma_sft
