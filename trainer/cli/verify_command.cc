#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "configs/error.h"
#include "trainer/checkpoint/checkpoint_format.h"
#include "trainer/cli/front_end_commands.h"
#include "trainer/run/progress.h"
#include "trainer/run/run_directory.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> find_folders(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    throw Error(ErrorKind::kCheckpoint,
                fmt::format("{}: not found; expected a checkpoint folder or a run folder", folder.string()));
  }
  if (fs::exists(folder / kCheckpointManifestName) || step_of_checkpoint_name(folder.filename().string()))
    return {folder};
  std::map<int64_t, fs::path> by_step;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (const auto step = step_of_checkpoint_name(entry.path().filename().string())) by_step[*step] = entry.path();
  }
  std::vector<fs::path> folders;
  for (const auto& [step, path] : by_step) folders.push_back(path);
  if (folders.empty()) {
    throw Error(ErrorKind::kCheckpoint, fmt::format("{}: there is no checkpoint-<step> folder in it", folder.string()));
  }
  return folders;
}

}  // namespace

int run_verify(const VerifyArguments& arguments, const Output& output) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  std::string problems;
  fs::path folder = fs::path(arguments.folder).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  for (const fs::path& checkpoint : find_folders(folder)) {
    // As a resume sees it: a checkpoint that another run made is none of the run folder that it lies in.
    const fs::path parent = checkpoint.parent_path();
    const CheckpointVerdict verdict = verify_checkpoint(checkpoint, find_run_id(parent.empty() ? "." : parent));
    nlohmann::ordered_json entry = {{"folder", checkpoint.string()}, {"ok", verdict.manifest.has_value()}};
    if (verdict.manifest) {
      uint64_t bytes = 0;
      for (const auto& [name, digest] : verdict.manifest->files) bytes += digest.bytes;
      entry["step"] = verdict.manifest->step;
      entry["run_id"] = verdict.manifest->run_id;
      entry["bytes"] = bytes;
      output.status(fmt::format("{}: step {}, {} files, {} bytes, every digest right", checkpoint.string(),
                                verdict.manifest->step, verdict.manifest->files.size(),
                                format_count(static_cast<int64_t>(bytes))));
    } else {
      entry["problem"] = verdict.problem;
      problems += (problems.empty() ? "" : "\n") + checkpoint.string() + ": " + verdict.problem;
    }
    list.push_back(entry);
  }
  if (!output.json() && !problems.empty()) throw Error(ErrorKind::kCheckpoint, problems);
  if (output.json()) {
    const nlohmann::ordered_json json = {{"checkpoints", list}, {"ok", problems.empty()}};
    output.print(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
    if (!problems.empty()) output.complain(problems);
  }
  return problems.empty() ? 0 : exit_code(ErrorKind::kCheckpoint);
}

}  // namespace gemma_sft
