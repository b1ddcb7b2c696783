// What a job is made from, before anything is sent: the rows as they will be trained on, the model's shape, and what it
// will take. Shared by `train` and `jobs estimate`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

#include "data/batches/dataset_index.h"
#include "data/text/tokenizer.h"
#include "model/gemma_config.h"
#include "trainer/cli/output.h"
#include "trainer/cli/train_request.h"
#include "trainer/tunix/job_estimate.h"
#include "trainer/tunix/job_spec.h"

namespace gemma_sft {

// Rows and model must be there, or may be missing (mock mode, estimates): then the manifest's count and the published
// shape stand in, and a warning says so.
enum class Missing { kIsAnError, kIsAccepted };

struct JobData {
  std::optional<Manifest> manifest;
  std::optional<GemmaConfig> model;
  std::shared_ptr<const Tokenizer> tokenizer;  // nullptr: the model is not here
  std::shared_ptr<const DatasetIndex> index;   // nullptr: rows or model are not here
  std::optional<int64_t> rows;
  std::optional<int64_t> steps;
  int64_t max_seq_length = 0;
};

// Reads and tokenises every row where it can. Throws Error(kData), Error(kModel).
JobData read_job_data(const LoadedConfig& loaded, Missing missing, const Output& output);

// Rows of the file that can be read, whatever their length: no tokenizer is needed.
int64_t count_rows(const std::filesystem::path& file, const DatasetSection& dataset);

// Of the rows that are trained on; nullopt where they were not tokenised.
std::optional<TokenTotals> totals_of(const JobData& data);

JobEstimate estimate_of(const RunConfig& config, const JobData& data, const PriceTable& prices);

}  // namespace gemma_sft
