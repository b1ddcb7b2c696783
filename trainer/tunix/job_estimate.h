// What a job will take, from the configuration, the data, the model's shape and a price table: no figure is fixed, and
// what is assumed is said.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "configs/run_config.h"
#include "model/gemma_config.h"
#include "trainer/tunix/price_table.h"

namespace gemma_sft {

struct EstimateRequest {
  const RunConfig& config;
  std::optional<GemmaConfig> model;         // nullopt: its shape is not known
  std::optional<int64_t> rows;              // to train on
  std::optional<int64_t> steps;             // optimizer steps
  std::optional<int64_t> tokens_per_epoch;  // nullopt: the rows were not tokenised
  int64_t longest_row = 0;                  // tokens, or the most that are allowed
};

struct Range {
  double low = 0, high = 0;
};

struct MemoryFit {
  std::string accelerator;
  double needed_bytes_per_core = 0;
  double available_bytes_per_core = 0;
  bool fits = false;
};

struct JobEstimate {
  std::optional<int64_t> rows;
  std::optional<int64_t> steps;
  std::optional<int64_t> tokens;  // over all epochs
  bool tokens_at_most = false;    // an upper bound: every row as long as the longest that is allowed
  int64_t parameters = 0;         // 0: not known
  int64_t trained_parameters = 0;
  std::vector<MemoryFit> memory;  // of every accelerator of the table, in its order
  std::string accelerator;        // the one asked for; empty: none
  std::optional<Range> hours;
  std::optional<Range> usd;
  double usd_per_hour = 0;  // with usd
  bool spot = false;
  double checkpoint_bytes = 0;
  double final_model_bytes = 0;
  std::string prices_as_of;
  std::vector<std::string> advice;       // what the production guide advises, and whether it would help here
  std::vector<std::string> assumptions;  // sentences

  const MemoryFit* find_memory(const std::string& name) const;
};

JobEstimate estimate_job(const EstimateRequest& request, const PriceTable& prices);

// The shape of a hub model whose files are not here, by its name; nullopt when it is none of the published ones.
std::optional<GemmaConfig> find_published_shape(const std::string& base_model);

// Matrices that LoRA adds.
int64_t lora_parameters(const LoraSection& lora, const GemmaConfig& model);

// Lines for people, each with its newline.
std::string estimate_text(const JobEstimate& estimate);
std::string estimate_json(const JobEstimate& estimate);  // one object, without a newline

// Accelerators that hold the run and cost less than `name`, the larger ones first: "tpu-v2-8, ..."; empty: none.
std::string smaller_that_fit(const JobEstimate& estimate, const PriceTable& prices, const std::string& name);

// Throws Error(kQuota) when the job may cost more than tunix.max_cost_usd, or when that cannot be known.
void require_affordable(const JobEstimate& estimate, const RunConfig& config);

}  // namespace gemma_sft
