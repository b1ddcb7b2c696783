// Python's pickle, which torch.save writes (bare, inside a zip archive, or inside a tar archive): such files can run
// code when they are loaded. They are never read here, only recognised: by content, whatever they are called.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace gemma_sft {

inline constexpr size_t kPickleStartBytes = 512;  // of a file; enough to tell

// What the file is that begins with `start` and how to convert it, as a sentence for messages; "" when it is no pickle.
std::string recognise_pickle(std::string_view start);
// The same for a file; "" when it cannot be read.
std::string recognise_pickle_file(const std::filesystem::path& path);

}  // namespace gemma_sft
