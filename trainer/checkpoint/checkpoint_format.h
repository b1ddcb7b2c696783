// A checkpoint folder `checkpoint-<step>/`: safetensors + JSON only, described by manifest.json, which is written last.
// No torch: the torch-free program verifies checkpoints too. The format has a version and its own page (FORMAT.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace gemma_sft {

inline constexpr int kCheckpointVersion = 1;
inline constexpr const char* kCheckpointManifestName = "manifest.json";
inline constexpr const char* kStateFileName = "state.json";

struct FileDigest {
  uint64_t bytes = 0;
  std::string sha256;

  bool operator==(const FileDigest&) const = default;
};

struct CheckpointManifest {
  int version = kCheckpointVersion;
  std::string run_id;
  int64_t step = 0;                         // finished optimizer steps
  std::map<std::string, FileDigest> files;  // every file of the folder but the manifest

  bool operator==(const CheckpointManifest&) const = default;
};

struct CheckpointVerdict {
  std::filesystem::path folder;
  std::optional<CheckpointManifest> manifest;  // set when it verifies
  std::string problem;                         // else: why it was rejected, naming file and digests
};

// "checkpoint-120", and back: nullopt for any other name ("checkpoint-12x", "my-checkpoint-5", "checkpoint-007").
std::string checkpoint_name(int64_t step);
std::optional<int64_t> step_of_checkpoint_name(const std::string& name);

// The text of manifest.json.
std::string to_json(const CheckpointManifest& manifest);

// Something that has a checkpoint's name and is none of this run's, however broken: no folder, a folder with neither
// manifest.json nor state.json, or one whose manifest names another run, format or version.
bool is_somebody_elses(const std::filesystem::path& path, const std::string& run_id);

// Reads the manifest, checks version, sizes and every SHA-256, that nothing else lies in the folder, and, where a run
// id is given, that it is that run's. Never throws for a bad folder. What this process lacks (memory, open files) is
// thrown, as it says nothing about the folder; what `before_block` throws, called ahead of every megabyte, passes
// through unless it is a std::exception.
CheckpointVerdict verify_checkpoint(const std::filesystem::path& folder,
                                    const std::optional<std::string>& run_id = std::nullopt,
                                    const std::function<void()>& before_block = nullptr);

// All checkpoint-* folders below `run_folder` (and nothing else), newest manifest step first among the good ones; the
// rejected follow with their reasons. A checkpoint of another run id is rejected by name.
std::vector<CheckpointVerdict> find_checkpoints(const std::filesystem::path& run_folder, const std::string& run_id,
                                                const std::function<void()>& before_block = nullptr);

}  // namespace gemma_sft
