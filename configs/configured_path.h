// Where a path that stands in a configuration file is.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace gemma_sft {

// An absolute path is itself; a relative one is tried against the working directory, then against each ancestor folder
// of the config file, nearest first. Gives the first that exists, or nullopt.
std::optional<std::filesystem::path> find_configured_path(const std::string& path,
                                                          const std::filesystem::path& config_file);

}  // namespace gemma_sft
