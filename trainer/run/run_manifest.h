// run_manifest.json: what a run was made from, for people and for tools that list runs. The field names run_id,
// created_at, dataset_path, dataset_key, training_config, model_config, recipe, backend, seed, git_sha, artifacts_path
// and metadata are those that readers of such files know; versions and hashes are ours. No torch.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "configs/run_config.h"
#include "data/files/file_system.h"

namespace gemma_sft {

inline constexpr const char* kRunManifestName = "run_manifest.json";

struct RunManifest {
  std::string run_id;
  std::string created_at;                  // ISO 8601, UTC; kept from the first start when a run is continued
  std::string dataset_path;                // the training rows
  std::optional<std::string> dataset_key;  // of the data set manifest, when there is one
  RunConfig config;
  std::string recipe;  // what readers of such files call the way of training: "trace_sft_v1"
  std::string device;
  std::optional<std::string> git_sha;           // of the working directory's repository
  std::filesystem::path artifacts_path;         // the run folder
  std::map<std::string, std::string> versions;  // "gemma-sft", "libtorch", ...
  std::map<std::string, std::string> sha256;    // "config", "dataset", "validation", "tokenizer", "base_model"
  std::map<std::string, std::string> metadata;  // anything else worth keeping, "status" among it
};

// Writes `folder`/run_manifest.json durably. created_at of an existing file is kept; an empty created_at means now.
void write_run_manifest(const std::filesystem::path& folder, const RunManifest& manifest, FileSystem& files);

// A text of `folder`/run_manifest.json; nullopt where there is no such file, it is not what a run writes, or has no
// such text. Throws Error(kIo) for one that cannot be read.
std::optional<std::string> find_in_run_manifest(const std::filesystem::path& folder, std::string_view name);

// The commit that HEAD of the repository around `folder` stands at, read from its .git; nullopt when there is none.
std::optional<std::string> find_git_sha(const std::filesystem::path& folder);

// "2026-01-31T12:00:00.123Z"
std::string utc_timestamp();

}  // namespace gemma_sft
