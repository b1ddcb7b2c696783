// The folder `run_<id>/` of one run: who it is, where it is, that only one process works in it, and its metrics.jsonl.
// No torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "configs/load_config.h"
#include "data/files/file_system.h"
#include "trainer/run/run_observer.h"
#include "trainer/run/step_rows.h"

namespace gemma_sft {

enum class ResumeMode { kAuto, kNever, kFolder };

struct RunPlace {
  std::string id;                // 12 hex digits, or what --run-id says
  std::filesystem::path folder;  // <output>/run_<id>, or --output's very folder
  bool is_exact = false;         // the latter
};

// 12 hex digits of the SHA-256 of the resolved config without output.* and device.
std::string default_run_id(const RunConfig& config);

// The run that a folder holds, as its run_manifest.json says; nullopt when there is none that can be read.
std::optional<std::string> find_run_id(const std::filesystem::path& folder);

struct PlaceRequest {
  std::optional<std::string> run_id = {};
  std::optional<std::string> exact_folder = {};  // --output DIR
  ResumeMode resume = ResumeMode::kAuto;
};
// Computes, creates nothing. `kNever` takes the next free suffix: run_<id>-2, -3, ... A folder named with --output that
// holds a run keeps that run's id, so that a changed configuration meets the checks of a resume instead of a stranger's
// checkpoints.
RunPlace resolve_run_place(const RunConfig& config, const PlaceRequest& request);

// Throws Error(kUsage): the folder is a checkpoint, or has a file by a name that a run gives and is no run's folder, so
// that a run would write over it.
void require_own_folder(const std::filesystem::path& folder);

// How to begin again beside what the folder holds: "start anew with --resume never or in another folder". The folder
// that --output names is the only one of its kind, and --resume never refuses it.
std::string describe_new_start(const RunPlace& place);

// Owns the lock of the folder for the life of the object; a second process is refused with the owner's pid and host
// (Error(kUsage)); a stale lock is taken over.
class RunLock {
 public:
  RunLock(const std::filesystem::path& folder, FileSystem& files);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  // false: run.lock, or the whole folder, was removed or replaced, and another process can have a lock of its own.
  bool is_held() const;
  void require_held() const;  // throws Error(kIo)

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

inline constexpr const char* kMetricsName = "metrics.jsonl";

// Appends metrics.jsonl, one flushed row per step and per evaluation. For a resume `truncate_after` cuts the rows past
// the checkpoint: those of later steps, and of an evaluation after `step` that the checkpoint does not know.
class MetricsFile : public RunObserver {
 public:
  MetricsFile(const std::filesystem::path& folder, FileSystem& files) : rows_(folder / kMetricsName, files) {}
  // The step of the last row that is left, 0 without any.
  int64_t truncate_after(int64_t step) { return truncate_after(step, step); }
  int64_t truncate_after(int64_t step, int64_t evaluated_step) {
    return rows_.truncate_after(step, evaluated_step < step ? "eval_loss" : "");
  }
  void on_step(const StepRecord& record) override;
  void on_eval(const EvalRecord& record) override;
  int64_t last_step() const { return rows_.last_step(); }
  void sync() { rows_.sync(); }  // before a checkpoint is announced

 private:
  StepRows rows_;
};

}  // namespace gemma_sft
