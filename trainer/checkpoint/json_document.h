// The JSON files of a run folder, read as if somebody had tampered with them. No torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace gemma_sft {

// The whole file, checked before anything is built: its size (1 MiB at most), UTF-8, duplicate names, depth (16 at
// most). Throws Error(kCheckpoint) naming the file's own name and the byte, Error(kIo) when it cannot be read.
nlohmann::json read_json_document(const std::filesystem::path& path);

// The number, which must be a whole one of at least `least` that fits; the library itself would cut and wrap it. Throws
// Error(kCheckpoint) naming `field`.
int64_t whole_number(const nlohmann::json& value, const char* field, int64_t least = 0);

}  // namespace gemma_sft
