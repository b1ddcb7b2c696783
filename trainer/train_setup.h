// What must be known before the first step: device, model folder, tokenizer, checked rows, plan. Loads no weights.
#pragma once

#include <c10/core/Device.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "data/batches/batch_stream.h"
#include "data/batches/dataset_index.h"
#include "data/records/manifest.h"
#include "data/text/tokenizer.h"
#include "model/gemma.h"
#include "model/gemma_config.h"
#include "trainer/activation_budget.h"
#include "trainer/checkpoint/train_state.h"
#include "trainer/run/run_observer.h"
#include "trainer/run_training.h"
#include "trainer/train_plan.h"

namespace gemma_sft {

struct TrainSetup {
  c10::Device device = c10::Device(c10::kCPU);
  std::filesystem::path model_folder;
  GemmaConfig model_config;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::optional<Manifest> manifest;
  std::shared_ptr<const DatasetIndex> index;
  std::shared_ptr<const DatasetIndex> validation_index;  // of the file that validation_rows are in; null without any
  std::vector<IndexedRow> validation_rows;
  TrainPlan plan;
  RunOrigin origin;
};

// Reads and checks everything that can be checked without the weights. What the user should know goes to `observer`:
// files used, numbers of rows and targets, rows skipped or cut. Throws StopRequested when a stop signal came.
// `on_skipped` hears of each row that is left out, in file order.
TrainSetup prepare_training(const TrainRequest& request, RunObserver& observer,
                            const std::function<void(const RowProblem&)>& on_skipped = nullptr);

// The model with its base weights, and its adapter when there is one: what step 0 starts from. Throws StopRequested.
Gemma load_model(const TrainSetup& setup, const RunConfig& config, const std::filesystem::path& config_file);

// What the largest micro-batch to come takes beside the loaded weights.
ActivationNeed activation_need(const Gemma& model, const LargestMicroBatch& largest);

// training.activation_checkpointing: auto: decides by the memory that is left how many blocks are computed again, and
// tells the observer.
void choose_activation_checkpointing(Gemma& model, const LargestMicroBatch& largest, RunObserver& observer);

int64_t count_targets(const std::vector<IndexedRow>& rows);

}  // namespace gemma_sft
