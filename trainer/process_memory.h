// Memory as Linux counts it: of this process, and what is left. No torch.
#pragma once

#include <cstdint>
#include <filesystem>

namespace gemma_sft {

int64_t peak_resident_bytes();  // VmHWM; 0 where /proc does not tell

// Memory that this process may still take: what Linux estimates for the machine (MemAvailable), or less where a memory
// cgroup (a container, a batch job) or a limit of the address space (ulimit -v) leaves less. 0 where /proc does not
// tell.
int64_t available_memory_bytes();

// The same by the files proc/... and sys/fs/cgroup/... below `root`: "/", or a test's folder.
int64_t available_memory_below(const std::filesystem::path& root);

}  // namespace gemma_sft
