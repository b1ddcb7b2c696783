// The data set manifest that dataset builders write next to the rows (dataset_key, trace_ids, trace_count, stats, ...).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "configs/run_config.h"

namespace gemma_sft {

inline constexpr uint64_t kMaxManifestBytes = 16 << 20;  // 400,000 traces; a longer file is no manifest

struct Manifest {
  std::filesystem::path path;
  std::string dataset_key;
  int64_t trace_count = 0;
  std::vector<std::string> trace_ids;
  std::vector<std::string> warnings;  // what is unknown but harmless, e.g. a build_id that is not a UUID
};

// Throws Error(kData): "Manifest not found: PATH" with the remedy, or every schema problem with file:line:column.
Manifest load_manifest(const std::filesystem::path& path, const std::string& configured_path);

// Where the training rows come from: dataset.data_path, else <manifest folder>/<format>.jsonl, else
// <manifest folder>/dataset.jsonl, else exported_rows_path. `found` is empty when none exists; `tried` is what was
// looked for, in order.
struct DataSource {
  std::optional<std::filesystem::path> found;
  std::vector<std::filesystem::path> tried;
};
DataSource find_training_rows(const DatasetSection& dataset, const std::optional<Manifest>& manifest,
                              const std::filesystem::path& config_file);

// Where rows that were read from a database for `manifest` lie: beside it, under a name with a digest of its trace_ids,
// so that a data set that was built anew is never trained on with the old rows.
std::filesystem::path exported_rows_path(const Manifest& manifest, DataFormat format);

const char* format_name(DataFormat format);  // "training_example", ...

}  // namespace gemma_sft
