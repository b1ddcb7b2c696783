#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/folder_entry.h"
#include "model/export_check.h"
#include "trainer/checkpoint/checkpoint_format.h"
#include "trainer/cli/front_end_commands.h"
#include "trainer/run/progress.h"
#include "trainer/run/run_directory.h"
#include "trainer/run/utf8_json.h"
#include "trainer/run_completion.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Folders {
  std::vector<fs::path> checkpoints;  // ascending by step
  std::vector<fs::path> exports;
};

// What there is to verify: the folder itself, or what lies in it when it is a run's.
Folders find_folders(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    throw Error(
        ErrorKind::kCheckpoint,
        fmt::format("{}: not found; expected a checkpoint, a run folder, a model or a PEFT folder", folder.string()));
  }
  if (fs::exists(folder / kCheckpointManifestName) || step_of_checkpoint_name(folder.filename().string()))
    return {{folder}, {}};
  if (is_exported_folder(folder)) return {{}, {folder}};
  std::map<int64_t, fs::path> by_step;
  for (const fs::path& path : list_folder(folder)) {
    if (const auto step = step_of_checkpoint_name(path.filename().string())) by_step[*step] = path;
  }
  Folders found;
  for (const auto& [step, path] : by_step) found.checkpoints.push_back(path);
  if (fs::exists(folder / kFinalModelName)) found.exports.push_back(folder / kFinalModelName);
  if (found.checkpoints.empty() && found.exports.empty()) {
    throw Error(ErrorKind::kCheckpoint,
                fmt::format("{}: there is no checkpoint-<step> folder in it, no {}, no config.json and no "
                            "adapter_config.json",
                            folder.string(), kFinalModelName));
  }
  return found;
}

// Adds "FOLDER: PROBLEM" and gives the one for JSON.
void add_problem(std::string& problems, const fs::path& folder, const std::string& problem) {
  problems += (problems.empty() ? "" : "\n") + folder.string() + ": " + problem;
}

Json check_checkpoint(const fs::path& folder, const Output& output, std::string& problems) {
  // As a resume sees it: a checkpoint that another run made is none of the run folder that it lies in.
  const CheckpointVerdict verdict = verify_checkpoint(folder, find_run_id(folder.parent_path()));
  Json entry = {{"folder", folder.string()}, {"ok", verdict.manifest.has_value()}};
  if (!verdict.manifest) {
    entry["problem"] = verdict.problem;
    add_problem(problems, folder, verdict.problem);
    return entry;
  }
  uint64_t bytes = 0;
  for (const auto& [name, digest] : verdict.manifest->files) bytes += digest.bytes;
  entry["step"] = verdict.manifest->step;
  entry["run_id"] = verdict.manifest->run_id;
  entry["bytes"] = bytes;
  output.status(fmt::format("{}: step {}, {} files, {} bytes, every digest right", folder.string(),
                            verdict.manifest->step, verdict.manifest->files.size(),
                            format_count(static_cast<int64_t>(bytes))));
  return entry;
}

Json check_export(const fs::path& folder, const Output& output, std::string& problems) {
  const ExportVerdict verdict = verify_export(folder);
  Json entry = {{"folder", folder.string()},      {"kind", verdict.adapter ? "adapter" : "model"},
                {"ok", verdict.problems.empty()}, {"tensors", verdict.tensors},
                {"bytes", verdict.tensor_bytes},  {"digests", verdict.digests},
                {"notes", verdict.notes}};
  if (!verdict.problems.empty()) entry["problems"] = verdict.problems;
  for (const std::string& problem : verdict.problems) add_problem(problems, folder, problem);
  for (const std::string& note : verdict.notes) output.note(folder.string() + ": " + note);
  if (verdict.problems.empty()) {
    output.status(fmt::format("{}: {}, {} tensors, {} bytes, as the programs that load it expect{}", folder.string(),
                              verdict.adapter ? "an adapter" : "a model", verdict.tensors,
                              format_count(static_cast<int64_t>(verdict.tensor_bytes)),
                              verdict.digests > 0 ? fmt::format(", {} digests right", verdict.digests) : ""));
  }
  return entry;
}

}  // namespace

int run_verify(const VerifyArguments& arguments, const Output& output) {
  const Folders folders = find_folders(plain_path(arguments.folder));
  Json checkpoints = Json::array(), exports = Json::array();
  std::string bad_checkpoints, bad_exports;
  for (const fs::path& path : folders.checkpoints) {
    checkpoints.push_back(check_checkpoint(path, output, bad_checkpoints));
  }
  for (const fs::path& path : folders.exports) exports.push_back(check_export(path, output, bad_exports));
  const std::string problems =
      bad_checkpoints + (bad_checkpoints.empty() || bad_exports.empty() ? "" : "\n") + bad_exports;
  const ErrorKind kind = bad_checkpoints.empty() ? ErrorKind::kModel : ErrorKind::kCheckpoint;
  if (!output.json() && !problems.empty()) throw Error(kind, problems);
  if (output.json()) {
    const Json json = {{"checkpoints", checkpoints}, {"exports", exports}, {"ok", problems.empty()}};
    output.print(utf8_json(json) + "\n");
    if (!problems.empty()) output.complain(problems);
  }
  return problems.empty() ? 0 : exit_code(kind);
}

}  // namespace gemma_sft
