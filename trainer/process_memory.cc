#include "trainer/process_memory.h"

#include <cstdio>
#include <fstream>
#include <string>

namespace gemma_sft {

int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  long long kilobytes = 0;
  for (std::string line; std::getline(status, line);) {
    if (std::sscanf(line.c_str(), "VmHWM: %lld kB", &kilobytes) == 1) return kilobytes * 1024;
  }
  return 0;
}

}  // namespace gemma_sft
