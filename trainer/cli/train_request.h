// The arguments of `train` -> what run_training takes, with every check that needs neither LibTorch nor the data's
// content. Both executables go this way; a dry-run ends before `require_startable`.
#pragma once

#include <filesystem>
#include <optional>

#include "data/records/manifest.h"
#include "trainer/cli/command_line.h"
#include "trainer/run_training.h"

namespace gemma_sft {

// Reads the configuration and computes the run's place. Creates nothing. Throws Error(kUsage).
TrainRequest make_train_request(const TrainArguments& arguments);

// Where the rows come from. Throws Error(kData) when a manifest, data file or validation file that is named is absent
// or a folder, or the manifest is not a manifest; rows that a manifest leaves to be found may be missing.
struct DatasetPlaces {
  std::optional<std::filesystem::path> manifest_file;
  std::optional<Manifest> manifest;
  DataSource rows;
};
DatasetPlaces find_dataset(const LoadedConfig& loaded);
// The rows' file. Throws Error(kData) that names every place that was looked at.
std::filesystem::path require_rows(const DatasetPlaces& dataset);

// Are the rows in no file, while the manifest names traces and DATABASE_URL says where they are?
bool comes_from_database(const LoadedConfig& loaded, const DatasetPlaces& dataset);
// The same for a command line. Reads configuration and manifest. Throws Error.
bool needs_rows_from_database(const TrainArguments& arguments);

// Everything else that can be known before LibTorch is loaded: a local place, rows, model folder,
// device, place to write to, checkpoint to resume from. Throws Error.
void require_startable(const TrainRequest& request, const DatasetPlaces& dataset);

// The folder that --resume names is there. Throws Error(kCheckpoint).
void require_resume_folder(const TrainRequest& request);

// The run folder is a folder and no bucket. Throws Error(kUsage).
void require_local_place(const TrainRequest& request);

// The base model is here and is a Gemma; max_seq_length, lora.target_modules and lora.init_from fit it. Reads
// config.json files, no weights. Throws Error.
void require_fitting_model(const LoadedConfig& loaded);

// `folder` can be made or written to, as far as permissions tell. Throws Error(kIo).
void require_writable_place(const std::filesystem::path& folder);

// --device can be honoured by this build and machine, as far as files tell. Throws Error(kUsage).
void require_device(const std::string& device);

// A run folder given to --resume becomes its newest checkpoint that verifies; reads that checkpoint's files. Throws
// Error(kCheckpoint).
void choose_resume_checkpoint(TrainRequest& request);

// Does the run go to a job service instead of this machine? --backend wins over the configuration.
bool goes_to_job_service(const TrainArguments& arguments, const RunConfig& config);
// The same. Reads the configuration. Throws Error(kUsage), also for settings that a job cannot honour.
bool goes_to_job_service(const TrainArguments& arguments);

}  // namespace gemma_sft
