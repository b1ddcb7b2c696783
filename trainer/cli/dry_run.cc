#include "trainer/cli/dry_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "configs/error.h"
#include "configs/secrets.h"
#include "trainer/cli/status_lines.h"
#include "trainer/cli/train_request.h"
#include "trainer/run/utf8_json.h"
#include "trainer/train_plan.h"
#include "trainer/tunix/job_settings.h"

namespace gemma_sft {
namespace {

// Rows as the manifest counts them, an upper bound of what is trained on. The data itself is not opened.
std::optional<int64_t> most_rows(const RunConfig& config, const DatasetPlaces& dataset) {
  if (!dataset.manifest || config.dataset.data_path) return std::nullopt;
  int64_t rows = dataset.manifest->trace_count;
  if (config.dataset.max_samples) rows = std::min(rows, *config.dataset.max_samples);
  if (rows < 1) return std::nullopt;
  return rows;
}

// What train would refuse on this machine before its first step. No errors here: training may happen on another one.
std::vector<std::string> find_obstacles(const TrainRequest& request) {
  std::vector<std::string> obstacles;
  const auto look = [&](const auto& require) {
    try {
      require();
    } catch (const std::exception& obstacle) {
      obstacles.push_back(fmt::format("training would stop at once: {}", obstacle.what()));
    }
  };
  look([&] { require_device(request.device); });
  look([&] { require_fitting_model(request.loaded); });
  look([&] {
    require_local_place(request);
    require_writable_place(request.place.folder);
    require_own_folder(request.place.folder);
  });
  return obstacles;
}

std::vector<std::string> find_warnings(const TrainRequest& request, const DatasetPlaces& dataset, bool is_job) {
  const RunConfig& config = request.loaded.config;
  std::vector<std::string> warnings = request.loaded.warnings;
  if (dataset.manifest) {
    warnings.insert(warnings.end(), dataset.manifest->warnings.begin(), dataset.manifest->warnings.end());
  }
  if (!dataset.rows.found && !comes_from_database(request.loaded, dataset)) {
    std::string tried;
    for (const auto& path : dataset.rows.tried) tried += (tried.empty() ? "" : ", ") + path.string();
    warnings.push_back(fmt::format(
        "no training rows beside the manifest; looked for {}; training needs them, or dataset.data_path", tried));
  }
  if (const auto steps = count_steps(config.training, most_rows(config, dataset))) {
    const std::vector<std::string> about_plan = plan_warnings(config, *steps);
    warnings.insert(warnings.end(), about_plan.begin(), about_plan.end());
  }
  if (is_job) {
    const std::vector<std::string> about_job = job_settings_warnings(config);
    warnings.insert(warnings.end(), about_job.begin(), about_job.end());
  } else {
    const std::vector<std::string> obstacles = find_obstacles(request);
    warnings.insert(warnings.end(), obstacles.begin(), obstacles.end());
  }
  return warnings;
}

}  // namespace

int run_dry_run(const TrainArguments& arguments, const Output& output) {
  const TrainRequest request = make_train_request(arguments);
  const bool is_job = goes_to_job_service(arguments, request.loaded.config);
  if (is_job) require_job_settings(request.loaded.config);
  require_resume_folder(request);
  print_config_status(request, output);
  const DatasetPlaces dataset = find_dataset(request.loaded);
  print_dataset_status(request, dataset, output);
  print_place_status(request, output);
  const std::vector<std::string> warnings = find_warnings(request, dataset, is_job);
  if (output.json()) {
    nlohmann::ordered_json json = {{"command", "train"}, {"dry_run", true}, {"config", request.loaded.file}};
    const DatasetSection& section = request.loaded.config.dataset;
    if (section.manifest_path) json["manifest"] = *section.manifest_path;
    if (dataset.manifest_file) json["manifest_file"] = dataset.manifest_file->string();
    json["data_file"] = dataset.rows.found ? nlohmann::ordered_json(dataset.rows.found->string()) : nullptr;
    json["run_id"] = request.place.id;
    json["output_dir"] = request.place.folder.string();
    json["warnings"] = warnings;
    output.print(without_secrets(utf8_json(json)) + "\n");
  }
  output.status("Dry-run mode: Exiting without training");
  if (comes_from_database(request.loaded, dataset)) {
    output.note(
        fmt::format("the rows are in no file: training reads the {} traces of the manifest from PostgreSQL "
                    "(DATABASE_URL) into {}",
                    dataset.manifest->trace_ids.size(),
                    exported_rows_path(*dataset.manifest, request.loaded.config.dataset.format).string()));
  }
  for (const std::string& warning : warnings) output.warn(warning);
  return 0;
}

}  // namespace gemma_sft
