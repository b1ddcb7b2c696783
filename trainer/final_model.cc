#include "trainer/final_model.h"

#include <fmt/format.h>
#include <unistd.h>

#include <vector>

#include "configs/error.h"
#include "configs/model_name.h"
#include "data/files/digest_list.h"
#include "data/files/folder_entry.h"
#include "model/hub_cache.h"
#include "model/weights.h"
#include "trainer/checkpoint/checkpoint_format.h"
#include "trainer/run_tensors.h"
#include "trainer/stop_signal.h"
#include "trainer/training_progress.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

// What the names of temporary folders begin with. `target` is a plain path.
std::string hidden_prefix(const fs::path& target) { return fmt::format(".{}.", target.filename().string()); }

// The cache keeps a commit in <folder of the id>/snapshots/<commit>.
bool is_snapshot_of(const std::string& hub_id, const fs::path& folder) {
  const fs::path snapshots = folder.parent_path();
  return snapshots.filename() == "snapshots" && snapshots.parent_path().filename() == cache_folder_name(hub_id);
}

}  // namespace

std::map<std::string, std::string> write_folder(
    const fs::path& destination, FileSystem& files,
    const std::function<std::map<std::string, std::string>(const fs::path&)>& write, Existing existing) {
  const fs::path target = plain_path(destination);
  const fs::path parent = target.parent_path();
  const fs::path temporary = parent / fmt::format("{}new-{}", hidden_prefix(target), getpid());
  const fs::path away = parent / fmt::format("{}old-{}", hidden_prefix(target), getpid());
  files.remove_tree(temporary);
  files.make_directories(temporary);
  std::map<std::string, std::string> written;
  try {
    written = write(temporary);
    write_digest_list(files, temporary, written);
  } catch (...) {
    try {
      files.remove_tree(temporary);
    } catch (const std::exception&) {
      // The first failure is the one to report. What is left is hidden; a run removes it at its next start, an export
      // to the same place does not.
    }
    throw;
  }
  files.sync_directory(temporary);
  if (fs::exists(fs::symlink_status(target))) {
    if (existing == Existing::kRefuse) {
      files.remove_tree(temporary);
      throw Error(ErrorKind::kUsage,
                  target.string() + ": is there by now, and was not when this began; it was left alone");
    }
    files.remove_tree(away);
    files.rename(target, away);
  }
  try {
    files.rename(temporary, target);
  } catch (...) {
    try {
      if (fs::exists(fs::symlink_status(away))) files.rename(away, target);
    } catch (const std::exception&) {
      // The first failure is the one to report; the next start of a run gives the name back.
    }
    throw;
  }
  files.sync_directory(parent);
  files.remove_tree(away);
  return written;
}

void remove_left_overs(const fs::path& destination, FileSystem& files) {
  const fs::path target = plain_path(destination);
  const std::string prefix = hidden_prefix(target);
  std::vector<fs::path> left_over;
  for (const fs::path& path : list_folder(target.parent_path())) {
    const std::string name = path.filename().string();
    if (name.starts_with(prefix + "old-") && !fs::exists(fs::symlink_status(target))) {
      files.rename(path, target);  // the crash came before the new one had the name
      files.sync_directory(target.parent_path());
    } else if (name.starts_with(prefix + "new-") || name.starts_with(prefix + "old-")) {
      left_over.push_back(path);
    }
  }
  for (const fs::path& path : left_over) files.remove_tree(path);
}

namespace {

// Nothing is in it but what a run lists in its SHA256SUMS.
bool is_made_by_a_run(const fs::path& model) {
  try {
    const auto listed = find_digest_list(model);
    for (const fs::path& path : list_folder(model)) {
      const std::string name = path.filename().string();
      if (name != kDigestListName && (!listed || !listed->contains(name))) return false;
    }
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

AdapterBase adapter_base(const ModelSection& configured, const fs::path& model_folder) {
  const std::string& name = configured.base_model;
  if (can_be_hub_id(name) && is_snapshot_of(name, plain_path(model_folder))) return {name, configured.revision};
  return {.name = fs::weakly_canonical(model_folder).string()};
}

RunCompletion export_final_model(const TrainRequest& request, const TrainSetup& setup, const TrainState& state,
                                 const CheckpointFolders& checkpoints, Gemma& model, FileSystem& files,
                                 RunObserver& observer) {
  const RunConfig& config = request.loaded.config;
  const bool from_best = config.evaluation.keep_best && state.best && state.best->step != state.step;
  RunCompletion completion{
      .run_id = request.place.id,
      .config_sha256 = config_sha256(config),
      .step = state.step,
      .model_step = from_best ? state.best->step : state.step,
      .early_stopped = stops_early(state, config.evaluation) && state.step < setup.plan.total_steps,
      .final_loss = state.last_loss,
      .final_eval_loss = state.last_eval_loss,
      .final_model = {}};
  if (from_best) {
    // Verified when it was found or written, which may be days ago.
    const CheckpointVerdict best =
        verify_checkpoint(checkpoints.folder(completion.model_step), request.place.id, throw_if_stopped);
    if (!best.manifest) {
      throw Error(ErrorKind::kCheckpoint,
                  fmt::format("{}: the best checkpoint can no longer be used: {}; restore it from a copy, or start the "
                              "same command again to export the last step",
                              best.folder.string(), best.problem));
    }
    read_checkpoint_weights(best.folder, trained_weights(model));
    observer.on_note(fmt::format("final_model is from the best checkpoint, of step {}", completion.model_step));
  }
  const fs::path final_model = request.place.folder / kFinalModelName;
  if (fs::exists(fs::symlink_status(final_model)) && !is_made_by_a_run(final_model)) {
    const fs::path aside = move_aside(files, final_model);
    observer.on_warning(fmt::format("{}: holds what no run wrote; it is {} now", final_model.string(), aside.string()));
  }
  completion.final_model = write_folder(final_model, files, [&](const fs::path& destination) {
    if (model.has_lora()) {
      return export_adapter(model, adapter_base(config.model, setup.model_folder), destination, files);
    }
    ExportOptions options;
    options.before_tensor = throw_if_stopped;
    options.dtype = config.output.model_dtype.value_or(files_dtype(setup.model_folder));
    return export_model(model, setup.model_folder, destination, files, options);
  });
  return completion;
}

}  // namespace gemma_sft
