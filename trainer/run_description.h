// What a run folder says about the run besides its metrics: run_manifest.json and data_report.json.
#pragma once

#include <filesystem>
#include <string>

#include "data/files/file_system.h"
#include "trainer/run_training.h"
#include "trainer/train_setup.h"

namespace gemma_sft {

// `folder`/data_report.json: what of the data is used, and the lines that were cut, and how many were skipped
// (skipped_rows.jsonl lists them).
void write_data_report(const std::filesystem::path& folder, const TrainSetup& setup, FileSystem& files);

// `folder`/run_manifest.json. `status`: "running" (also after a kill, which writes nothing), "stopped" by a signal,
// "failed" or "finished".
void write_run_description(const std::filesystem::path& folder, const TrainRequest& request, const TrainSetup& setup,
                           const std::string& status, FileSystem& files);

}  // namespace gemma_sft
