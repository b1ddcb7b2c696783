#include "trainer/process_memory.h"

#include <cstdio>
#include <fstream>
#include <string>

namespace gemma_sft {

namespace {

// The kilobytes behind the name in a file of /proc, as bytes.
int64_t read_bytes(const char* path, const char* pattern) {
  std::ifstream file(path);
  long long kilobytes = 0;
  for (std::string line; std::getline(file, line);) {
    if (std::sscanf(line.c_str(), pattern, &kilobytes) == 1) return kilobytes * 1024;
  }
  return 0;
}

}  // namespace

int64_t peak_resident_bytes() { return read_bytes("/proc/self/status", "VmHWM: %lld kB"); }

int64_t available_memory_bytes() { return read_bytes("/proc/meminfo", "MemAvailable: %lld kB"); }

}  // namespace gemma_sft
