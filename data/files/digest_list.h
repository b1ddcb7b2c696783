// SHA256SUMS: the digests of a folder's files, in the format of sha256sum, so that `sha256sum -c SHA256SUMS` checks
// them wherever the folder goes.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "data/files/file_system.h"

namespace gemma_sft {

inline constexpr const char* kDigestListName = "SHA256SUMS";

// Writes, fsyncs and closes `folder`/SHA256SUMS; no rename: callers write into a temporary folder. SHA-256 by plain
// file name.
void write_digest_list(FileSystem& files, const std::filesystem::path& folder,
                       const std::map<std::string, std::string>& sha256);

// nullopt: the folder has none. Throws Error(kModel) for a line that is not "<64 hex digits>  <plain file name>", with
// a name of UTF-8 without control characters. Lines may end in CR LF.
std::optional<std::map<std::string, std::string>> find_digest_list(const std::filesystem::path& folder);

}  // namespace gemma_sft
