// A library for LD_PRELOAD that lets the C library fail on purpose, in whatever program it is loaded into.
//
// FAULT_ALLOCATION=BYTES:N: the N-th request (from 1) for at least BYTES bytes of memory finds none; BYTES:N+: neither
// does any after it.
//
// FAULT_EXEMPT=FROM-TO: requests for FROM to TO bytes are left alone and not counted.
//
// FAULT_ALLOCATION_LOG=FILE: at the end of the process FILE holds how many such requests there were.
//
// FAULT_STALL=NAME:N: from the N-th read of a file of that name on, reads of it never come back.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>

namespace {

// No allocation here: everything is read from the environment by the first call, into plain memory.
struct Faults {
  size_t least_bytes = 0;
  long failing_request = 0;
  bool and_all_after_it = false;
  size_t exempt_from = SIZE_MAX, exempt_to = 0;
  const char* log = nullptr;
  const char* stalling_name = nullptr;
  size_t stalling_name_length = 0;
  long stalling_read = 0;
};

Faults read_environment() {
  Faults faults;
  if (const char* text = getenv("FAULT_ALLOCATION")) {
    char* end = nullptr;
    faults.least_bytes = strtoull(text, &end, 10);
    faults.failing_request = strtol(end + 1, &end, 10);
    faults.and_all_after_it = *end == '+';
  }
  if (const char* text = getenv("FAULT_EXEMPT")) {
    char* end = nullptr;
    faults.exempt_from = strtoull(text, &end, 10);
    faults.exempt_to = strtoull(end + 1, nullptr, 10);
  }
  faults.log = getenv("FAULT_ALLOCATION_LOG");
  if (const char* text = getenv("FAULT_STALL")) {
    faults.stalling_name = text;
    faults.stalling_name_length = static_cast<size_t>(strchr(text, ':') - text);
    faults.stalling_read = strtol(strchr(text, ':') + 1, nullptr, 10);
  }
  return faults;
}

const Faults& faults() {
  static const Faults read = read_environment();
  return read;
}

std::atomic<long> requests{0};
std::atomic<long> reads{0};

bool finds_no_memory(size_t size) {
  if (faults().least_bytes == 0 || size < faults().least_bytes) return false;
  if (size >= faults().exempt_from && size <= faults().exempt_to) return false;
  const long request = ++requests;
  if (faults().failing_request == 0) return false;
  return faults().and_all_after_it ? request >= faults().failing_request : request == faults().failing_request;
}

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

void stall_if_wanted(int descriptor) {
  if (faults().stalling_name == nullptr) return;
  char link[64], path[4096];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof(path) - 1);
  if (length < static_cast<ssize_t>(faults().stalling_name_length)) return;
  const char* end = path + length - faults().stalling_name_length;
  if (strncmp(end, faults().stalling_name, faults().stalling_name_length) != 0) return;
  if (++reads < faults().stalling_read) return;
  for (;;) pause();
}

__attribute__((destructor)) void write_log() {
  if (faults().log == nullptr) return;
  const int file = open(faults().log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (file >= 0) {
    dprintf(file, "%ld\n", requests.load());
    close(file);
  }
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void* malloc(size_t size) {
  static const auto real = next<void* (*)(size_t)>("malloc");
  if (finds_no_memory(size)) {
    errno = ENOMEM;
    return nullptr;
  }
  return real(size);
}

__attribute__((visibility("default"))) int posix_memalign(void** memory, size_t alignment, size_t size) {
  static const auto real = next<int (*)(void**, size_t, size_t)>("posix_memalign");
  return finds_no_memory(size) ? ENOMEM : real(memory, alignment, size);
}

__attribute__((visibility("default"))) void* mmap(void* place, size_t size, int protection, int flags, int file,
                                                  off_t offset) noexcept {
  static const auto real = next<void* (*)(void*, size_t, int, int, int, off_t)>("mmap");
  if ((flags & MAP_ANONYMOUS) != 0 && finds_no_memory(size)) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return real(place, size, protection, flags, file, offset);
}

__attribute__((visibility("default"))) void* aligned_alloc(size_t alignment, size_t size) {
  static const auto real = next<void* (*)(size_t, size_t)>("aligned_alloc");
  if (finds_no_memory(size)) {
    errno = ENOMEM;
    return nullptr;
  }
  return real(alignment, size);
}

__attribute__((visibility("default"))) ssize_t pread(int descriptor, void* bytes, size_t size, off_t offset) {
  static const auto real = next<ssize_t (*)(int, void*, size_t, off_t)>("pread");
  stall_if_wanted(descriptor);
  return real(descriptor, bytes, size, offset);
}
}
