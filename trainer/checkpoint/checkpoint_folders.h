// The checkpoint-<step> folders of one run: which verify, how a new one becomes visible, which old ones go. No torch.
//
// A checkpoint is written into a hidden temporary folder; `publish` writes its manifest, syncs and renames, so that a
// folder named checkpoint-<step> is complete at every moment. An old one is renamed away before it is deleted, for the
// same reason. What a crash leaves behind is hidden and removed at the next start, or given its name back where it is
// the only one of its step. Only folders that this run's manifests claim, and that verified at the start or were
// written since, are ever deleted.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/files/file_system.h"
#include "trainer/checkpoint/checkpoint_format.h"

namespace gemma_sft {

// One process at a time per run folder (RunLock). One thread.
class CheckpointFolders {
 public:
  // `keep`: how many of the newest stay, at least 1.
  CheckpointFolders(std::filesystem::path run_folder, std::string run_id, int64_t keep, FileSystem& files);

  // Clears up after earlier crashes and verifies what is there, which takes a second for each gigabyte or so;
  // `before_block` (verify_checkpoint) may end it by throwing.
  void open(const std::function<void()>& before_block = nullptr);
  const std::vector<CheckpointVerdict>& rejected() const { return rejected_; }  // by open()
  const std::set<int64_t>& steps() const { return steps_; }                     // good ones of this run
  std::filesystem::path folder(int64_t step) const;

  // An empty temporary folder for a checkpoint of about `bytes` bytes; throws Error(kIo) when there is no room for it.
  std::filesystem::path begin(int64_t step, uint64_t bytes);
  // Makes it visible under its final name, on disk. A checkpoint of that step with the same content stays, another one
  // of this run or a broken one is replaced. What is somebody else's (is_somebody_elses) is set aside as
  // checkpoint-<step>.aside-<n> and never deleted.
  void publish(const std::filesystem::path& temporary, int64_t step, const std::map<std::string, FileDigest>& contents);
  // Deletes the checkpoints of this run past `step`, the newest first: it was taken back to `step`, and what came after
  // is superseded.
  void remove_after(int64_t step);
  // Deletes what is neither one of the newest `keep` nor `best_step`, and everything past `newest_step`, where the run
  // now stands.
  void rotate(int64_t newest_step, std::optional<int64_t> best_step);

 private:
  void recover();
  void replace(const std::filesystem::path& temporary, int64_t step);
  void remove_checkpoint(int64_t step);
  std::filesystem::path hidden_name(int64_t step, const char* purpose) const;

  std::filesystem::path run_folder_;
  std::string run_id_;
  int64_t keep_;
  FileSystem& files_;
  std::set<int64_t> steps_;
  std::vector<CheckpointVerdict> rejected_;
};

}  // namespace gemma_sft
