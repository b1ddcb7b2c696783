#include "trainer/checkpoint/checkpoint_folders.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "configs/error.h"
#include "data/files/folder_entry.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHiddenPrefix = ".checkpoint-";
// What hidden folders are: not complete yet, being deleted, replaced by a new one.
constexpr const char* kNew = "new";
constexpr const char* kOld = "old";
constexpr const char* kReplaced = "replaced";

// ".checkpoint-60.new-4711", as hidden_name makes them: the purpose; "" for other names, which are not ours.
std::string purpose_of(std::string name) {
  if (!name.starts_with(kHiddenPrefix)) return "";
  const size_t dot = name.rfind('.'), dash = name.rfind('-');
  const auto is_number = [](const std::string& text) {
    return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
  };
  if (dot == 0 || dash < dot || !is_number(name.substr(dash + 1))) return "";
  if (!step_of_checkpoint_name(name.substr(1, dot - 1))) return "";
  return name.substr(dot + 1, dash - dot - 1);
}

}  // namespace

CheckpointFolders::CheckpointFolders(fs::path run_folder, std::string run_id, int64_t keep, FileSystem& files)
    : run_folder_(std::move(run_folder)),
      run_id_(std::move(run_id)),
      keep_(std::max<int64_t>(1, keep)),
      files_(files) {}

void CheckpointFolders::open(const std::function<void()>& before_block) {
  recover();
  steps_.clear();
  rejected_.clear();
  for (CheckpointVerdict& verdict : find_checkpoints(run_folder_, run_id_, before_block)) {
    if (verdict.manifest) {
      steps_.insert(verdict.manifest->step);
    } else {
      rejected_.push_back(std::move(verdict));
    }
  }
}

// A crash between the two renames of a replacement has left a checkpoint under a hidden name alone: it gets its name
// back. Everything else that hidden_name named goes. What is visible is on the disk before that, or a power cut could
// bring back names whose files are gone.
void CheckpointFolders::recover() {
  std::vector<fs::path> left_over;
  for (const fs::path& path : list_folder(run_folder_)) {
    const std::string purpose = purpose_of(path.filename().string());
    if (purpose == kNew || purpose == kOld || purpose == kReplaced) left_over.push_back(path);
  }
  if (left_over.empty()) return;
  for (const fs::path& path : left_over) {
    const std::string hidden = path.filename().string();
    if (purpose_of(hidden) != kReplaced) continue;
    const fs::path name = run_folder_ / hidden.substr(1, hidden.rfind('.') - 1);
    if (!fs::exists(fs::symlink_status(name))) files_.rename(path, name);
  }
  files_.sync_directory(run_folder_);
  for (const fs::path& path : left_over) {
    try {
      files_.remove_tree(path);
    } catch (const Error& error) {
      // Hidden, and in nobody's way: a folder that was protected, or is another user's, stops no run.
      if (error.error_number() != EACCES && error.error_number() != EPERM) throw;
    }
  }
}

fs::path CheckpointFolders::folder(int64_t step) const { return run_folder_ / checkpoint_name(step); }

fs::path CheckpointFolders::hidden_name(int64_t step, const char* purpose) const {
  return run_folder_ / fmt::format("{}{}.{}-{}", kHiddenPrefix, step, purpose, getpid());
}

fs::path CheckpointFolders::begin(int64_t step, uint64_t bytes) {
  const fs::path temporary = hidden_name(step, kNew);
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
    const CheckpointVerdict existing = verify_checkpoint(final_name, run_id_);
    if (existing.manifest == manifest) {
      files_.remove_tree(temporary);
      steps_.insert(step);
      return;
    }
    if (!existing.manifest && is_somebody_elses(final_name, run_id_)) move_aside(files_, final_name);
  }
  write_new_file(files_, temporary / kCheckpointManifestName, to_json(manifest));
  files_.sync_directory(temporary);
  if (fs::exists(fs::symlink_status(final_name))) {
    replace(temporary, step);
  } else {
    files_.rename(temporary, final_name);
    files_.sync_directory(run_folder_);
  }
  steps_.insert(step);
}

// The old one stays, hidden, until the new one's name is on the disk; recover() gives it back after a crash.
void CheckpointFolders::replace(const fs::path& temporary, int64_t step) {
  const fs::path replaced = hidden_name(step, kReplaced);
  files_.rename(folder(step), replaced);
  try {
    files_.rename(temporary, folder(step));
  } catch (...) {
    try {
      files_.rename(replaced, folder(step));
    } catch (const Error&) {
      // The first failure is the one to report; the next start gives the name back.
    }
    throw;
  }
  files_.sync_directory(run_folder_);
  files_.remove_tree(replaced);
}

void CheckpointFolders::remove_after(int64_t step) {
  while (!steps_.empty() && *steps_.rbegin() > step) remove_checkpoint(*steps_.rbegin());
}

void CheckpointFolders::rotate(int64_t newest_step, std::optional<int64_t> best_step) {
  // What somebody removed to make room is not there to be kept.
  std::erase_if(steps_, [this](int64_t step) { return !fs::exists(fs::symlink_status(folder(step))); });
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
  const fs::path away = hidden_name(step, kOld);
  files_.remove_tree(away);
  files_.rename(folder(step), away);
  files_.sync_directory(run_folder_);
  files_.remove_tree(away);
  steps_.erase(step);
}

}  // namespace gemma_sft
