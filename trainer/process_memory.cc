#include "trainer/process_memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();
constexpr int64_t kKilobyte = 1024;  // what /proc calls kB

// The number behind `key` at the start of a line of a file; nullopt: no such file or line, or a word there ("max").
std::optional<int64_t> find_number(const fs::path& file, std::string_view key) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (!line.starts_with(key)) continue;
    const size_t begin = line.find_first_not_of(" \t", key.size());
    if (begin == std::string::npos) continue;
    int64_t number = 0;
    const auto [rest, error] = std::from_chars(line.data() + begin, line.data() + line.size(), number);
    if (error == std::errc()) return number;
  }
  return std::nullopt;
}

// The files of a memory cgroup: version 2 of cgroups, and version 1.
struct CgroupFiles {
  const char* limit;
  const char* usage;
  const char* unused_cache;  // in memory.stat
};
constexpr CgroupFiles kVersion2 = {"memory.max", "memory.current", "inactive_file"};
constexpr CgroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};

// The usage counts the page cache; what of it nobody has used lately is given up when memory is asked for, so that it
// is room, as kubelet counts it.
int64_t room_in_cgroup(const fs::path& folder, const CgroupFiles& files) {
  const std::optional<int64_t> limit = find_number(folder / files.limit, "");
  const std::optional<int64_t> usage = find_number(folder / files.usage, "");
  if (!limit || !usage) return kNoLimit;
  const int64_t unused_cache = find_number(folder / "memory.stat", files.unused_cache).value_or(0);
  return *limit - std::max<int64_t>(0, *usage - unused_cache);
}

// Of this process's own memory cgroup and of all above it: the limit of each counts. A container often sees its own
// cgroup as the root of them all, and a path that is not there; then the root is what is left to look at.
int64_t room_in_cgroups(const fs::path& root) {
  int64_t room = kNoLimit;
  std::ifstream stream(root / "proc/self/cgroup");
  for (std::string line; std::getline(stream, line);) {  // "0::/a/b" for version 2, "7:cpu,memory:/a/b" for version 1
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool is_version_2 = controllers == ",,";
    if (!is_version_2 && controllers.find(",memory,") == std::string::npos) continue;
    const fs::path mount = root / (is_version_2 ? "sys/fs/cgroup" : "sys/fs/cgroup/memory");
    fs::path cgroup = fs::path(line.substr(second + 1)).lexically_normal();
    for (;;) {
      room = std::min(room, room_in_cgroup(mount / cgroup.relative_path(), is_version_2 ? kVersion2 : kVersion1));
      if (!cgroup.has_relative_path()) break;
      cgroup = cgroup.parent_path();
    }
  }
  return room;
}

int64_t room_in_address_space(const fs::path& root) {
  const std::optional<int64_t> limit = find_number(root / "proc/self/limits", "Max address space");
  const std::optional<int64_t> mapped = find_number(root / "proc/self/status", "VmSize:");
  return limit && mapped ? *limit - *mapped * kKilobyte : kNoLimit;
}

}  // namespace

int64_t peak_resident_bytes() { return find_number("/proc/self/status", "VmHWM:").value_or(0) * kKilobyte; }

int64_t available_memory_bytes() { return available_memory_below("/"); }

int64_t available_memory_below(const fs::path& root) {
  const std::optional<int64_t> on_machine = find_number(root / "proc/meminfo", "MemAvailable:");
  if (!on_machine) return 0;
  const int64_t room = std::min({*on_machine * kKilobyte, room_in_cgroups(root), room_in_address_space(root)});
  return std::max<int64_t>(0, room);
}

}  // namespace gemma_sft
