#include "trainer/run_description.h"

#include <nlohmann/json.hpp>

#include "configs/choice_names.h"
#include "configs/load_config.h"
#include "data/files/sha256.h"
#include "data/records/manifest.h"
#include "trainer/run/run_manifest.h"
#include "trainer/run/skipped_rows.h"
#include "trainer/run/utf8_json.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// `trained`: the rows of the index's training side are trained on; those of a file of its own for validation are not.
json report_of(const DatasetIndex& index, bool trained) {
  const std::vector<IndexedRow> none;
  const std::vector<IndexedRow>& training = trained ? index.train : none;
  const std::vector<IndexedRow>& validation = trained ? index.validation : index.train;
  return {{"file", index.file},
          {"sha256", index.sha256},
          {"rows_read", index.rows_read},
          {"training_rows", training.size()},
          {"training_target_tokens", count_targets(training)},
          {"validation_rows", validation.size()},
          {"validation_target_tokens", count_targets(validation)},
          {"longest_tokens", index.longest_tokens},
          {"skipped_rows", index.skipped_rows},
          {"skipped_in", index.skipped_rows > 0 ? json(kSkippedRowsName) : json(nullptr)},
          {"truncated_rows", index.truncated.size()},
          {"truncated_lines", index.truncated},
          {"truncated_target_rows", index.truncated_targets.size()},
          {"truncated_target_lines", index.truncated_targets},
          {"unread_fields", index.unread_fields},
          {"control_text_rows", index.control_text.size()},
          {"control_text_lines", index.control_text}};
}

}  // namespace

void write_data_report(const fs::path& folder, const TrainSetup& setup, FileSystem& files) {
  json report = {{"training", report_of(*setup.index, /*trained=*/true)}};
  if (setup.validation_index && setup.validation_index != setup.index) {
    report["validation"] = report_of(*setup.validation_index, /*trained=*/false);
  }
  write_file_durably(files, folder / "data_report.json", utf8_json(report, 2) + "\n");
}

void write_run_description(const fs::path& folder, const TrainRequest& request, const TrainSetup& setup,
                           const std::string& status, FileSystem& files) {
  const RunOrigin& origin = setup.origin;
  RunManifest manifest;
  manifest.run_id = request.place.id;
  manifest.dataset_path = setup.index->file;
  if (setup.manifest) manifest.dataset_key = setup.manifest->dataset_key;
  manifest.config = request.loaded.config;
  manifest.recipe = "trace_sft_v1";
  manifest.device = origin.device;
  manifest.git_sha = find_git_sha(fs::current_path());
  manifest.artifacts_path = folder;
  manifest.versions = origin.versions;
  manifest.sha256 = {{"config", sha256_hex(to_yaml(request.loaded.config))},
                     {"dataset", origin.data_sha256},
                     {"tokenizer", origin.tokenizer_sha256},
                     {"base_model", origin.model_sha256}};
  if (!origin.validation_sha256.empty()) manifest.sha256["validation"] = origin.validation_sha256;
  manifest.metadata = {{"status", status},
                       {"base_model_folder", origin.model_folder},
                       {"config_file", request.loaded.file},
                       {"precision", std::string(choice_name(origin.precision))},
                       {"threads", std::to_string(origin.threads)},
                       {"total_steps", std::to_string(setup.plan.total_steps)},
                       {"training_rows", std::to_string(setup.index->train.size())}};
  write_run_manifest(folder, manifest, files);
}

}  // namespace gemma_sft
