// The files of a finished job -> a folder. The folder appears under its name only when every file is there, has the
// right digest and is on the disk; until then everything lies in <folder>.partial, from where the next attempt goes on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/file_system.h"
#include "trainer/tunix/job_client.h"

namespace gemma_sft {

// Why `path` (the service's word) cannot be a file below a folder of ours, or nothing: absolute, "..", a drive, a
// backslash, control characters, bad UTF-8, names longer than 255 bytes, 16 folders deep.
std::string artifact_path_problem(std::string_view path);

struct DownloadResult {
  std::filesystem::path folder;
  std::vector<Artifact> artifacts;
  uint64_t bytes = 0;
  bool was_there = false;  // `folder` held exactly these files already
};

// Everything but checkpoints. Throws Error(kIo): a path that may not be, two that differ in case only, no room, a
// digest that is wrong twice, a folder that holds something else; Error(kJobFailed) when the job has no final model.
DownloadResult download_job(JobClient& client, const std::string& id, const std::filesystem::path& destination,
                            FileSystem& files);

}  // namespace gemma_sft
