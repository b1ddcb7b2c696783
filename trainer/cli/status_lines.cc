#include "trainer/cli/status_lines.h"

namespace gemma_sft {

void print_config_status(const TrainRequest& request, const Output& output) {
  output.status("Config loaded: " + request.loaded.file);
}

void print_dataset_status(const TrainRequest& request, const DatasetPlaces& dataset, const Output& output) {
  const DatasetSection& section = request.loaded.config.dataset;
  if (section.manifest_path) {
    output.status("Manifest validated: " + *section.manifest_path);
  } else if (section.data_path) {
    output.status("Dataset file: " + *section.data_path);
  }
  if (dataset.manifest_file) output.explain("manifest file: " + dataset.manifest_file->string());
  if (dataset.rows.found) output.explain("training rows: " + dataset.rows.found->string());
}

void print_place_status(const TrainRequest& request, const Output& output) {
  output.status("Output dir: " + request.place.folder.string());
}

}  // namespace gemma_sft
