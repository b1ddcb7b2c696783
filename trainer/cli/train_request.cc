#include "trainer/cli/train_request.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <system_error>
#include <vector>

#include "configs/configured_path.h"
#include "configs/environment.h"
#include "configs/error.h"
#include "data/files/folder_entry.h"
#include "data/files/input_file.h"
#include "model/adapter_config.h"
#include "model/gemma_config.h"
#include "model/hub_cache.h"
#include "model/lora.h"
#include "model/lora_targets.h"
#include "trainer/checkpoint/checkpoint_format.h"
#include "trainer/train_plan.h"
#include "trainer/tunix/job_settings.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

bool is_address(const std::string& path) { return path.starts_with("gs://"); }

std::vector<fs::path> checkpoint_folders_newest_first(const fs::path& run_folder) {
  std::vector<int64_t> steps;
  for (const fs::path& path : list_folder(run_folder)) {
    if (const auto step = step_of_checkpoint_name(path.filename().string())) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end(), std::greater<>());
  std::vector<fs::path> folders;
  for (const int64_t step : steps) folders.push_back(run_folder / checkpoint_name(step));
  return folders;
}

// A folder, a pipe or a device is no data set; a file that may not be read is not yet one.
void require_readable(const fs::path& file) {
  try {
    const InputFile readable(file);
  } catch (const Error& error) {
    throw Error(ErrorKind::kData, error.what());
  }
}

}  // namespace

TrainRequest make_train_request(const TrainArguments& arguments) {
  LoadOptions options;
  options.assignments = arguments.assignments;
  TrainRequest request;
  request.loaded = load_config(arguments.config, options);
  if (arguments.resume == "never") {
    request.resume = ResumeMode::kNever;
  } else if (arguments.resume != "auto") {
    request.resume = ResumeMode::kFolder;
    request.resume_folder = arguments.resume;
  }
  request.place = resolve_run_place(
      request.loaded.config, {.run_id = arguments.run_id, .exact_folder = arguments.output, .resume = request.resume});
  request.allowed_changes = arguments.allowed_changes;
  request.device = arguments.device;
  return request;
}

DatasetPlaces find_dataset(const LoadedConfig& loaded) {
  const DatasetSection& dataset = loaded.config.dataset;
  const fs::path config_file = loaded.file;
  DatasetPlaces places;
  if (dataset.manifest_path) {
    places.manifest_file = find_configured_path(*dataset.manifest_path, config_file).value_or(*dataset.manifest_path);
    places.manifest = load_manifest(*places.manifest_file, *dataset.manifest_path);
  }
  places.rows = find_training_rows(dataset, places.manifest, config_file);
  if (dataset.data_path && !places.rows.found) {
    throw Error(ErrorKind::kData,
                fmt::format("Data file not found: {} ({}); check dataset.data_path or --data (relative paths start at "
                            "the working directory or at a folder above the configuration file)",
                            *dataset.data_path, loaded.origins.at("dataset.data_path")));
  }
  if (places.rows.found) require_readable(*places.rows.found);
  if (!dataset.validation_path) return places;
  const std::optional<fs::path> validation = find_configured_path(*dataset.validation_path, config_file);
  if (!validation) {
    throw Error(ErrorKind::kData,
                fmt::format("Data file not found: {} ({}); check dataset.validation_path (relative paths start at the "
                            "working directory or at a folder above the configuration file)",
                            *dataset.validation_path, loaded.origins.at("dataset.validation_path")));
  }
  require_readable(*validation);
  return places;
}

fs::path require_rows(const DatasetPlaces& dataset) {
  if (dataset.rows.found) return *dataset.rows.found;
  std::string tried;
  for (const fs::path& path : dataset.rows.tried) tried += (tried.empty() ? "" : ", ") + path.string();
  std::string remedy = "put the rows there, or name them with dataset.data_path or --data";
  if (dataset.manifest && !dataset.manifest->trace_ids.empty()) {
    remedy += fmt::format(", or set DATABASE_URL to read the {} traces of the manifest from PostgreSQL",
                          dataset.manifest->trace_ids.size());
  }
  throw Error(ErrorKind::kData, fmt::format("Data file not found: {}; {}", tried, remedy));
}

void require_resume_folder(const TrainRequest& request) {
  if (!request.resume_folder || fs::is_directory(*request.resume_folder)) return;
  throw Error(ErrorKind::kCheckpoint,
              fmt::format("--resume {}: not found; expected auto, never, a checkpoint folder or a "
                          "run folder",
                          request.resume_folder->string()));
}

bool comes_from_database(const LoadedConfig& loaded, const DatasetPlaces& dataset) {
  return !dataset.rows.found && dataset.manifest && !dataset.manifest->trace_ids.empty() &&
         loaded.config.dataset.format != DataFormat::kTokens && EnvironmentReader().find("DATABASE_URL").has_value();
}

bool needs_rows_from_database(const TrainArguments& arguments) {
  const LoadedConfig loaded = make_train_request(arguments).loaded;
  return loaded.config.dataset.manifest_path && comes_from_database(loaded, find_dataset(loaded));
}

void require_startable(const TrainRequest& request, const DatasetPlaces& dataset) {
  require_local_place(request);
  require_rows(dataset);
  require_device(request.device);
  require_fitting_model(request.loaded);
  require_writable_place(request.place.folder);
  require_own_folder(request.place.folder);
  require_resume_folder(request);
}

void require_local_place(const TrainRequest& request) {
  if (is_address(request.place.folder.string())) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{}: a run on this machine cannot write to a bucket; give a folder with "
                            "--output-dir, --output or output.run_dir, or train with --backend tunix",
                            request.place.folder.string()));
  }
}

void require_fitting_model(const LoadedConfig& loaded) {
  const RunConfig& config = loaded.config;
  const GemmaConfig shape = load_gemma_config(find_base_model(config.model, loaded.file));
  choose_max_seq_length(config, shape.max_position_embeddings);
  if (config.lora.rank == 0) return;
  require_targets(config.lora.target_modules, linear_layers(shape));
  if (!config.lora.init_from) return;
  require_continuation(lora_options(config.lora), find_initial_adapter(config.lora, loaded.file), shape);
}

void require_writable_place(const fs::path& folder) {
  std::error_code error;
  fs::path existing = fs::absolute(folder, error);
  while (!error && !fs::exists(fs::symlink_status(existing, error)) && existing != existing.parent_path()) {
    existing = existing.parent_path();
    error.clear();
  }
  if (!fs::is_directory(existing, error)) {
    throw Error(ErrorKind::kIo,
                fmt::format("{}: cannot make the run folder: {} is not a folder; choose another place with "
                            "--output-dir or --output",
                            folder.string(), existing.string()));
  }
  if (access(existing.c_str(), W_OK | X_OK) != 0) {
    throw Error(ErrorKind::kIo,
                fmt::format("{}: cannot make the run folder: {} cannot be written to; choose another place "
                            "with --output-dir or --output",
                            folder.string(), existing.string()));
  }
}

void require_device(const std::string& device) {
  if (!device.starts_with("cuda")) return;
#ifndef GEMMA_SFT_HAS_CUDA
  throw Error(ErrorKind::kUsage,
              fmt::format("--device {}: this build has no CUDA; build one with ./bootstrap.sh build --cuda (or cmake "
                          "-DGEMMA_SFT_CUDA=ON), or use --device cpu",
                          device));
#else
  if (!fs::exists("/dev/nvidiactl") && !fs::exists("/dev/dxg")) {
    throw Error(ErrorKind::kUsage, fmt::format("--device {}: there is no NVIDIA GPU here (neither /dev/nvidiactl nor "
                                               "/dev/dxg exists); use --device cpu",
                                               device));
  }
#endif
}

void choose_resume_checkpoint(TrainRequest& request) {
  if (!request.resume_folder || fs::exists(*request.resume_folder / kCheckpointManifestName)) return;
  std::string problems;
  for (const fs::path& folder : checkpoint_folders_newest_first(*request.resume_folder)) {
    const CheckpointVerdict verdict = verify_checkpoint(folder);
    if (verdict.manifest) {
      request.resume_folder = folder;
      return;
    }
    problems += "\n  " + folder.string() + ": " + verdict.problem;
  }
  throw Error(
      ErrorKind::kCheckpoint,
      fmt::format("--resume {}: {}", request.resume_folder->string(),
                  problems.empty() ? "there is no checkpoint in it; expected a checkpoint folder or a run folder"
                                   : "no checkpoint can be used:" + problems));
}

bool goes_to_job_service(const TrainArguments& arguments, const RunConfig& config) {
  if (arguments.backend != Backend::kAuto) return arguments.backend == Backend::kTunix;
  return config.tunix.present;
}

bool goes_to_job_service(const TrainArguments& arguments) {
  if (arguments.backend == Backend::kNative) return false;
  const RunConfig config = make_train_request(arguments).loaded.config;
  if (!goes_to_job_service(arguments, config)) return false;
  require_job_settings(config);
  return true;
}

}  // namespace gemma_sft
