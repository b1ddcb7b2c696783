#include "trainer/resume.h"

#include <fmt/format.h>

#include "configs/error.h"
#include "configs/load_config.h"
#include "trainer/resume_check.h"
#include "trainer/run/run_directory.h"
#include "trainer/run_completion.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

std::optional<fs::path> choose_checkpoint(const TrainRequest& request, const CheckpointFolders& folders) {
  if (request.resume == ResumeMode::kNever) {
    if (folders.steps().empty() && folders.rejected().empty()) return std::nullopt;
    throw Error(ErrorKind::kUsage,
                fmt::format("{}: --resume never, but there are checkpoints in it; give another --output or --run-id",
                            request.place.folder.string()));
  }
  if (request.resume == ResumeMode::kFolder) {
    const fs::path folder = request.resume_folder.value_or("").lexically_normal();
    const fs::path trimmed = folder.has_filename() ? folder : folder.parent_path();  // "checkpoint-3/"
    const CheckpointVerdict verdict = verify_checkpoint(trimmed, std::nullopt, throw_if_stopped);
    if (verdict.manifest) return trimmed;
    throw Error(ErrorKind::kCheckpoint,
                fmt::format("--resume {}: {}; name another checkpoint folder, or let --resume auto choose",
                            trimmed.string(), verdict.problem));
  }
  if (!folders.steps().empty()) return folders.folder(*folders.steps().rbegin());
  if (folders.rejected().empty()) return std::nullopt;
  std::string reasons;
  for (const CheckpointVerdict& verdict : folders.rejected()) {
    reasons += fmt::format("\n  {}: {}", verdict.folder.string(), verdict.problem);
  }
  throw Error(ErrorKind::kCheckpoint,
              fmt::format("{}: no checkpoint can be used:{}\nRestore one from a copy, or {}",
                          request.place.folder.string(), reasons, describe_new_start(request.place)));
}

// How often the run that is in the folder saved; 0: not known, or only at its end.
int64_t checkpoint_every_of(const fs::path& folder) {
  try {
    return load_config(folder / "config.yaml").config.output.checkpoint_every;
  } catch (const Error&) {
    return 0;
  }
}

std::string or_none(const std::string& sha256) { return sha256.empty() ? "none" : sha256; }

}  // namespace

std::optional<ResumePoint> find_resume_point(const TrainRequest& request, const CheckpointFolders& folders,
                                             const RunOrigin& now, RunObserver& observer) {
  const std::optional<fs::path> checkpoint = choose_checkpoint(request, folders);
  for (const CheckpointVerdict& verdict : folders.rejected()) {
    observer.on_warning(fmt::format("{}: not used: {}", verdict.folder.string(), verdict.problem));
  }
  if (!checkpoint) return std::nullopt;
  SavedState saved = read_saved_state(*checkpoint);
  for (const std::string& note :
       require_same_origin(saved.origin, now, request.allowed_changes, checkpoint->string(), request.place)) {
    observer.on_warning(note);
  }
  if (saved.state.best && !folders.steps().contains(saved.state.best->step) && now.config.evaluation.keep_best) {
    observer.on_warning(
        fmt::format("{}: the best checkpoint so far, of step {}, is not there any more; the search for the "
                    "best begins anew",
                    checkpoint->string(), saved.state.best->step));
    saved.state.best.reset();
  }
  const bool has_compared = saved.state.best || saved.state.evaluations_without_improvement > 0;
  if (has_compared && saved.origin.validation_sha256 != now.validation_sha256) {
    observer.on_warning(fmt::format(
        "{}: its evaluations were on other rows than those to come (SHA-256 of the validation file was {} and is {}), "
        "and cannot be compared with them; the search for the best begins anew",
        checkpoint->string(), or_none(saved.origin.validation_sha256), or_none(now.validation_sha256)));
    saved.state.best.reset();
    saved.state.evaluations_without_improvement = 0;
  }
  observer.on_note(fmt::format("continuing from {}", checkpoint->string()));
  return ResumePoint{*checkpoint, saved.state};
}

void require_nothing_lost(const TrainRequest& request, int64_t last_row) {
  const fs::path& folder = request.place.folder;
  std::string lost;
  if (fs::exists(folder / kCompletionName)) {
    lost = fmt::format(
        "a run was finished here, with another configuration or another {} than there is now, and its checkpoints are "
        "not there",
        kFinalModelName);
  } else if (const int64_t every = checkpoint_every_of(folder); every > 0 && last_row > 2 * every) {
    // A save in the background may still have been under way when the next one was due.
    lost = fmt::format("{} has steps up to {}, a checkpoint was due every {}, and none is there", kMetricsName,
                       last_row, every);
  }
  if (lost.empty()) return;
  throw Error(ErrorKind::kCheckpoint, fmt::format("{}: {}. Restore one from a copy, remove the folder, or {}",
                                                  folder.string(), lost, describe_new_start(request.place)));
}

}  // namespace gemma_sft
