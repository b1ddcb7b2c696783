#include "tests/testing/system_calls.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <utility>

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

struct Watch {
  std::mutex mutex;
  bool active = false;
  std::string root;
  CallFault fault;
  bool has_struck = false;
  int64_t calls_made = 0;
  std::vector<SystemCall> calls;
};

Watch& watch() {
  static Watch only;
  return only;
}

// No allocation and no lock before a WatchedCalls exists: libraries call these functions while they are being loaded.
std::atomic<bool> is_watching = false;

std::string path_of_descriptor(int descriptor) {
  char name[64] = "/proc/self/fd/";
  std::string digits = std::to_string(descriptor);
  std::copy(digits.begin(), digits.end(), name + 14);
  name[14 + digits.size()] = '\0';
  char target[4096];
  const long size = ::syscall(SYS_readlinkat, AT_FDCWD, name, target, sizeof(target));
  return size > 0 ? std::string(target, static_cast<size_t>(size)) : "";
}

std::string path_at(int folder, const char* path) {
  if (path == nullptr) return "";
  if (path[0] == '/') return path;
  char here[4096];
  const std::string base = folder != AT_FDCWD                              ? path_of_descriptor(folder)
                           : ::syscall(SYS_getcwd, here, sizeof(here)) > 0 ? std::string(here)
                                                                           : "";
  return fs::path(base + "/" + path).lexically_normal().string();
}

[[noreturn]] void die() {
  ::syscall(SYS_kill, ::getpid(), SIGKILL);
  for (;;) ::pause();
}

// The call with its fault, when it is below the root; `real` does it and returns as system calls do. `half` does half
// of it.
template <typename Real, typename Half>
long with_fault(SystemCall call, bool interruptible, Real real, Half half) {
  Watch& state = watch();
  const std::unique_lock lock(state.mutex);
  if (!state.active || !call.path.native().starts_with(state.root)) return real();
  const bool strikes = state.calls_made++ == state.fault.call;
  if (strikes) state.has_struck = true;
  const auto done = [&](long result) {
    const int error = errno;
    call.succeeded = result >= 0;
    if (call.name == "write") call.bytes.resize(static_cast<size_t>(std::max<long>(0, result)));
    state.calls.push_back(std::move(call));
    errno = error;
    return result;
  };
  switch (strikes ? state.fault.action : CallAction::kNone) {
    case CallAction::kFail:
      if (call.name == "close") real();  // Linux gives the descriptor back even when it reports an error
      errno = state.fault.error_number;
      return done(-1);
    case CallAction::kInterrupt:
      if (!interruptible) break;
      if (call.name == "close") real();
      errno = EINTR;
      return done(-1);
    case CallAction::kShorten: return done(half());
    case CallAction::kKillBefore: die();
    case CallAction::kKillAfter: real(); die();
    case CallAction::kKillHalfway: half(); die();
    case CallAction::kNone: break;
  }
  return done(real());
}

template <typename Real>
long with_fault(SystemCall call, bool interruptible, Real real) {
  return with_fault(std::move(call), interruptible, real, real);
}

}  // namespace

WatchedCalls::WatchedCalls(fs::path root, CallFault fault) {
  Watch& state = watch();
  const std::lock_guard lock(state.mutex);
  state.active = true;
  state.root = std::move(root);
  state.fault = fault;
  state.has_struck = false;
  state.calls_made = 0;
  state.calls.clear();
  is_watching = true;
}

WatchedCalls::~WatchedCalls() {
  is_watching = false;
  const std::lock_guard lock(watch().mutex);
  watch().active = false;
}

std::vector<SystemCall> WatchedCalls::calls() const {
  const std::lock_guard lock(watch().mutex);
  return watch().calls;
}

bool WatchedCalls::has_struck() const {
  const std::lock_guard lock(watch().mutex);
  return watch().has_struck;
}

void WatchedCalls::note(const std::string& text) {
  const std::lock_guard lock(watch().mutex);
  SystemCall note;
  note.name = "note";
  note.path = text;
  watch().calls.push_back(std::move(note));
}

namespace {

SystemCall call_of(const char* name, std::string path) {
  SystemCall call;
  call.name = name;
  call.path = std::move(path);
  return call;
}

long open_with_fault(int folder, const char* path, int flags, mode_t mode) {
  const auto real = [&] { return ::syscall(SYS_openat, folder, path, flags, mode); };
  if (!is_watching) return real();
  SystemCall call = call_of("open", path_at(folder, path));
  call.flags = flags;
  return with_fault(std::move(call), true, real);
}

long write_with_fault(int descriptor, const void* bytes, size_t size) {
  const auto write_now = [&](size_t count) { return ::syscall(SYS_write, descriptor, bytes, count); };
  if (!is_watching) return write_now(size);
  SystemCall call = call_of("write", path_of_descriptor(descriptor));
  if (!call.path.empty() && call.path.native().front() == '/') {
    const bool appends = (::syscall(SYS_fcntl, descriptor, F_GETFL) & O_APPEND) != 0;
    call.offset = ::syscall(SYS_lseek, descriptor, 0, appends ? SEEK_END : SEEK_CUR);
    call.bytes.assign(static_cast<const char*>(bytes), size);
  }
  return with_fault(
      std::move(call), true, [&] { return write_now(size); }, [&] { return write_now(std::max<size_t>(1, size / 2)); });
}

long truncate_with_fault(int descriptor, off_t size) {
  const auto real = [&] { return ::syscall(SYS_ftruncate, descriptor, size); };
  if (!is_watching) return real();
  SystemCall call = call_of("ftruncate", path_of_descriptor(descriptor));
  call.offset = size;
  return with_fault(std::move(call), true, real);
}

long rename_with_fault(const char* from, const char* to) {
  const auto real = [&] { return ::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0); };
  if (!is_watching) return real();
  SystemCall call = call_of("rename", path_at(AT_FDCWD, to));
  call.from = path_at(AT_FDCWD, from);
  return with_fault(std::move(call), false, real);
}

// A call with nothing but a path or a descriptor.
template <typename PathOf, typename Real>
long plain_with_fault(const char* name, bool interruptible, PathOf path_of, Real real) {
  if (!is_watching) return real();
  return with_fault(call_of(name, path_of()), interruptible, real);
}

}  // namespace
}  // namespace gemma_sft

// libc's names. Default visibility, so that shared libraries find them, too.
#define GEMMA_SFT_CALL extern "C" __attribute__((visibility("default")))

namespace {

mode_t mode_argument(int flags, va_list more) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; }

}  // namespace

GEMMA_SFT_CALL int open(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = mode_argument(flags, more);
  va_end(more);
  return static_cast<int>(gemma_sft::open_with_fault(AT_FDCWD, path, flags, mode));
}

GEMMA_SFT_CALL int open64(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = mode_argument(flags, more);
  va_end(more);
  return static_cast<int>(gemma_sft::open_with_fault(AT_FDCWD, path, flags, mode));
}

GEMMA_SFT_CALL int openat(int folder, const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = mode_argument(flags, more);
  va_end(more);
  return static_cast<int>(gemma_sft::open_with_fault(folder, path, flags, mode));
}

GEMMA_SFT_CALL int openat64(int folder, const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = mode_argument(flags, more);
  va_end(more);
  return static_cast<int>(gemma_sft::open_with_fault(folder, path, flags, mode));
}

GEMMA_SFT_CALL ssize_t write(int descriptor, const void* bytes, size_t size) {
  return gemma_sft::write_with_fault(descriptor, bytes, size);
}

GEMMA_SFT_CALL int fsync(int descriptor) {
  return static_cast<int>(gemma_sft::plain_with_fault(
      "fsync", true, [&] { return gemma_sft::path_of_descriptor(descriptor); },
      [&] { return ::syscall(SYS_fsync, descriptor); }));
}

GEMMA_SFT_CALL int ftruncate(int descriptor, off_t size) noexcept {
  return static_cast<int>(gemma_sft::truncate_with_fault(descriptor, size));
}

GEMMA_SFT_CALL int close(int descriptor) {
  return static_cast<int>(gemma_sft::plain_with_fault(
      "close", true, [&] { return gemma_sft::path_of_descriptor(descriptor); },
      [&] { return ::syscall(SYS_close, descriptor); }));
}

GEMMA_SFT_CALL int rename(const char* from, const char* to) noexcept {
  return static_cast<int>(gemma_sft::rename_with_fault(from, to));
}

GEMMA_SFT_CALL int mkdir(const char* path, mode_t mode) noexcept {
  return static_cast<int>(gemma_sft::plain_with_fault(
      "mkdir", false, [&] { return gemma_sft::path_at(AT_FDCWD, path); },
      [&] { return ::syscall(SYS_mkdirat, AT_FDCWD, path, mode); }));
}

GEMMA_SFT_CALL int unlinkat(int folder, const char* path, int flags) noexcept {
  return static_cast<int>(gemma_sft::plain_with_fault(
      flags & AT_REMOVEDIR ? "rmdir" : "unlink", false, [&] { return gemma_sft::path_at(folder, path); },
      [&] { return ::syscall(SYS_unlinkat, folder, path, flags); }));
}

GEMMA_SFT_CALL int unlink(const char* path) noexcept { return ::unlinkat(AT_FDCWD, path, 0); }

GEMMA_SFT_CALL int rmdir(const char* path) noexcept { return ::unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
