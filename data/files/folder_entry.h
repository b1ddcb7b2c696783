// A file of a folder that came from elsewhere, such as a model's: it must lie where it says.
#pragma once

#include <filesystem>
#include <string>

namespace gemma_sft {

// Whether `folder`/`name` is there and may be read. False: there is nothing of that name. `folder` may be a link, it is
// what the user named; `name` is one plain name, and where it is a symbolic link it must lead to a file inside the
// folder or, from snapshots/<commit>/ of a Hugging Face cache, inside that model's part of the cache (its blobs/).
// Throws Error(kModel) for any other name or link, a link to nothing, and whatever is no regular file.
bool has_folder_entry(const std::filesystem::path& folder, const std::string& name);

}  // namespace gemma_sft
