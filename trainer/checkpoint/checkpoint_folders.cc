#include "trainer/checkpoint/checkpoint_folders.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "configs/error.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHiddenPrefix = ".checkpoint-";

void write_synced(FileSystem& files, const fs::path& path, const std::string& text) {
  const auto file = files.create(path);
  file->append(text);
  file->sync();
  file->close();
}

}  // namespace

CheckpointFolders::CheckpointFolders(fs::path run_folder, std::string run_id, int64_t keep, FileSystem& files)
    : run_folder_(std::move(run_folder)),
      run_id_(std::move(run_id)),
      keep_(std::max<int64_t>(1, keep)),
      files_(files) {}

void CheckpointFolders::open() {
  std::vector<fs::path> left_over;
  for (const fs::directory_entry& entry : fs::directory_iterator(run_folder_)) {
    if (entry.path().filename().string().starts_with(kHiddenPrefix)) left_over.push_back(entry.path());
  }
  for (const fs::path& path : left_over) files_.remove_tree(path);
  steps_.clear();
  rejected_.clear();
  for (CheckpointVerdict& verdict : find_checkpoints(run_folder_, run_id_)) {
    if (verdict.manifest) {
      steps_.insert(verdict.manifest->step);
    } else {
      rejected_.push_back(std::move(verdict));
    }
  }
}

fs::path CheckpointFolders::folder(int64_t step) const { return run_folder_ / checkpoint_name(step); }

fs::path CheckpointFolders::hidden_name(int64_t step, const char* purpose) const {
  return run_folder_ / fmt::format("{}{}.{}-{}", kHiddenPrefix, step, purpose, getpid());
}

fs::path CheckpointFolders::begin(int64_t step, uint64_t bytes) {
  const fs::path temporary = hidden_name(step, "new");
  files_.remove_tree(temporary);
  files_.require_space(run_folder_, bytes);
  files_.make_directories(temporary);
  return temporary;
}

void CheckpointFolders::publish(const fs::path& temporary, int64_t step,
                                const std::map<std::string, FileDigest>& contents) {
  const CheckpointManifest manifest{.run_id = run_id_, .step = step, .files = contents};
  const fs::path final_name = folder(step);
  if (fs::exists(fs::symlink_status(final_name))) {
    const CheckpointVerdict existing = verify_checkpoint(final_name);
    if (existing.manifest && existing.manifest->run_id != run_id_) {
      throw Error(ErrorKind::kCheckpoint,
                  fmt::format("{}: belongs to run {}, and run {} is to save its step {} there; move it away",
                              final_name.string(), existing.manifest->run_id, run_id_, step));
    }
    if (existing.manifest == manifest) {
      files_.remove_tree(temporary);
      steps_.insert(step);
      return;
    }
  }
  write_synced(files_, temporary / kCheckpointManifestName, to_json(manifest));
  files_.sync_directory(temporary);
  if (fs::exists(fs::symlink_status(final_name))) remove_checkpoint(step);
  files_.rename(temporary, final_name);
  files_.sync_directory(run_folder_);
  steps_.insert(step);
}

void CheckpointFolders::rotate(int64_t newest_step, std::optional<int64_t> best_step) {
  std::vector<int64_t> doomed;
  int64_t kept = 0;
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    if (*step <= newest_step && kept < keep_) {
      ++kept;
    } else if (*step > newest_step || best_step != *step) {
      doomed.push_back(*step);
    }
  }
  for (int64_t step : doomed) remove_checkpoint(step);
}

void CheckpointFolders::remove_checkpoint(int64_t step) {
  const fs::path away = hidden_name(step, "old");
  files_.remove_tree(away);
  files_.rename(folder(step), away);
  files_.sync_directory(run_folder_);
  files_.remove_tree(away);
  steps_.erase(step);
}

}  // namespace gemma_sft
