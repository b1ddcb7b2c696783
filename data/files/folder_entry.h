// What is in a folder: everything, or a file of one that came from elsewhere, such as a model's, which must lie where
// it says.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace gemma_sft {

// Paths of all entries of a folder, in no order; none where there is no such folder. Throws Error(kIo) where it cannot
// be listed, so that nobody takes what is there for absent, and std::bad_alloc.
std::vector<std::filesystem::path> list_folder(const std::filesystem::path& folder);

// Whether `folder`/`name` is there and may be read. False: there is nothing of that name. `folder` may be a link, it is
// what the user named; `name` is one plain name, and where it is a symbolic link it must lead to a file inside the
// folder or, from snapshots/<commit>/ of a Hugging Face cache, inside that model's part of the cache (its blobs/).
// Throws Error(kModel) for any other name or link, a link to nothing, and whatever is no regular file.
bool has_folder_entry(const std::filesystem::path& folder, const std::string& name);

}  // namespace gemma_sft
