#include "configs/configured_path.h"

#include <system_error>

namespace gemma_sft {

namespace fs = std::filesystem;

std::optional<fs::path> find_configured_path(const std::string& path, const fs::path& config_file) {
  if (path.empty() || path.find('\0') != std::string::npos) return std::nullopt;
  std::error_code ignored;
  const fs::path relative(path);
  if (fs::exists(relative, ignored)) return relative;
  if (relative.is_absolute()) return std::nullopt;
  fs::path folder = fs::absolute(config_file, ignored).lexically_normal().parent_path();
  while (!folder.empty()) {
    fs::path candidate = folder / relative;
    if (fs::exists(candidate, ignored)) return candidate;
    if (folder == folder.root_path()) break;
    folder = folder.parent_path();
  }
  return std::nullopt;
}

}  // namespace gemma_sft
