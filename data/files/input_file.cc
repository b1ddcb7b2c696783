#include "data/files/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/utf8.h"

namespace gemma_sft {
namespace {

const char* kind_of_file(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe; write its contents to a file first";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

}  // namespace

InputFile::InputFile(const std::filesystem::path& path) : path_(path) {
  // The system would read the name up to there, which may be another file's.
  if (path.native().find('\0') != std::string::npos) {
    throw Error(ErrorKind::kIo, quoted_excerpt(path.native(), 200) + ": a file's name cannot hold a NUL byte");
  }
  // O_NONBLOCK: opening a pipe that nobody writes to must not hang.
  do {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ < 0) throw file_error("open", path, errno);
  struct stat status;
  if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    const int error = errno;
    const bool is_known = ::fstat(descriptor_, &status) == 0;
    ::close(descriptor_);
    if (!is_known) throw file_error("stat", path, error);
    throw Error(ErrorKind::kIo, path.string() + ": expected a regular file, found " + kind_of_file(status.st_mode));
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), size_(other.size_), descriptor_(std::exchange(other.descriptor_, -1)) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(size_, other.size_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

size_t InputFile::read_some(uint64_t offset, void* destination, size_t size) const {
  constexpr size_t kMostAtOnce = size_t{1} << 30;  // Linux transfers at most 0x7ffff000 bytes in one call
  if (offset > static_cast<uint64_t>(INT64_MAX)) return 0;
  size_t done = 0;
  while (done < size) {
    const ssize_t count = ::pread(descriptor_, static_cast<char*>(destination) + done,
                                  std::min(size - done, kMostAtOnce), static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw file_error("read", path_, errno);
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return done;
}

}  // namespace gemma_sft
