// The main job: a resolved configuration -> a trained model in the run folder. The loop to read first.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "configs/load_config.h"
#include "trainer/run/run_directory.h"
#include "trainer/run/run_observer.h"
#include "trainer/step_watch.h"

namespace gemma_sft {

enum class AllowedChange { kData, kConfig, kTokenizer };

struct TrainRequest {
  LoadedConfig loaded;
  RunPlace place;
  ResumeMode resume = ResumeMode::kAuto;
  std::optional<std::filesystem::path> resume_folder;  // --resume DIR: a checkpoint folder
  std::set<AllowedChange> allowed_changes;
  std::string device = "auto";  // auto | cpu | cuda[:N]
  OnStall on_stall = nullptr;   // hears of a step that takes longer than training.step_timeout; see StepWatch
};

enum class RunOutcome { kFinished, kAlreadyFinished, kStopped, kEarlyStopped };

struct RunResult {
  RunOutcome outcome = RunOutcome::kFinished;
  int64_t steps = 0;
  std::optional<double> final_loss;
  std::optional<double> final_eval_loss;
  std::filesystem::path run_folder;
  std::filesystem::path final_model;  // empty when stopped
  int signal = 0;                     // kStopped: which
};

// Throws Error. `observers` are told what happens, in the given order; not owned.
RunResult run_training(const TrainRequest& request, FileSystem& files, const std::vector<RunObserver*>& observers);

}  // namespace gemma_sft
