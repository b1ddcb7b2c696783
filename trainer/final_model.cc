#include "trainer/final_model.h"

#include <fmt/format.h>
#include <unistd.h>

#include <vector>

#include "configs/error.h"
#include "data/files/digest_list.h"
#include "data/files/folder_entry.h"
#include "model/weights.h"
#include "trainer/checkpoint/checkpoint_format.h"
#include "trainer/run_tensors.h"
#include "trainer/stop_signal.h"
#include "trainer/training_progress.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

fs::path folder_of(const fs::path& destination) {
  const fs::path parent = fs::absolute(destination).lexically_normal().parent_path();
  return parent.empty() ? "." : parent;
}

std::string hidden_prefix(const fs::path& destination) {
  return fmt::format(".{}.", fs::absolute(destination).lexically_normal().filename().string());
}

}  // namespace

std::map<std::string, std::string> write_folder(
    const fs::path& destination, FileSystem& files,
    const std::function<std::map<std::string, std::string>(const fs::path&)>& write) {
  const fs::path parent = folder_of(destination);
  const fs::path temporary = parent / fmt::format("{}new-{}", hidden_prefix(destination), getpid());
  const fs::path away = parent / fmt::format("{}old-{}", hidden_prefix(destination), getpid());
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
      // The first failure is the one to report; what is left is hidden and removed at the next start.
    }
    throw;
  }
  files.sync_directory(temporary);
  if (fs::exists(fs::symlink_status(destination))) {
    files.remove_tree(away);
    files.rename(destination, away);
  }
  files.rename(temporary, destination);
  files.sync_directory(parent);
  files.remove_tree(away);
  return written;
}

void remove_left_overs(const fs::path& destination, FileSystem& files) {
  std::vector<fs::path> left_over;
  for (const fs::path& path : list_folder(folder_of(destination))) {
    const std::string name = path.filename().string();
    const std::string prefix = hidden_prefix(destination);
    if (name.starts_with(prefix + "new-") || name.starts_with(prefix + "old-")) left_over.push_back(path);
  }
  for (const fs::path& path : left_over) files.remove_tree(path);
}

std::string base_model_name(const std::string& configured, const fs::path& model_folder) {
  const bool from_hub_cache = model_folder.parent_path().filename() == "snapshots";
  return from_hub_cache ? configured : fs::weakly_canonical(model_folder).string();
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
    const CheckpointVerdict best = verify_checkpoint(checkpoints.folder(completion.model_step), request.place.id);
    if (!best.manifest) {
      throw Error(ErrorKind::kCheckpoint,
                  fmt::format("{}: the best checkpoint can no longer be used: {}; restore it from a copy, or start the "
                              "same command again to export the last step",
                              best.folder.string(), best.problem));
    }
    read_checkpoint_weights(best.folder, trained_weights(model));
    observer.on_note(fmt::format("final_model is from the best checkpoint, of step {}", completion.model_step));
  }
  completion.final_model =
      write_folder(request.place.folder / kFinalModelName, files, [&](const fs::path& destination) {
        if (model.has_lora()) {
          return export_adapter(model, base_model_name(config.model.base_model, setup.model_folder), destination,
                                files);
        }
        ExportOptions options;
        options.before_tensor = throw_if_stopped;
        options.dtype = config.output.model_dtype.value_or(files_dtype(setup.model_folder));
        return export_model(model, setup.model_folder, destination, files, options);
      });
  return completion;
}

}  // namespace gemma_sft
