// The status lines that a dry-run and a training run begin with, word for word as scripts expect them.
#pragma once

#include "trainer/cli/output.h"
#include "trainer/cli/train_request.h"

namespace gemma_sft {

void print_config_status(const TrainRequest& request, const Output& output);  // "✅ Config loaded: FILE"
// "✅ Manifest validated: PATH", or without a manifest "✅ Dataset file: PATH"; paths as they are configured.
void print_dataset_status(const TrainRequest& request, const DatasetPlaces& dataset, const Output& output);
void print_place_status(const TrainRequest& request, const Output& output);  // "✅ Output dir: FOLDER"

}  // namespace gemma_sft
