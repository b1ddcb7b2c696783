// What is submitted: a resolved configuration and the data set's identity -> the body of POST /jobs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "configs/run_config.h"

namespace gemma_sft {

struct JobSpec {
  std::string project_id;
  std::string experiment_name;
  std::string dataset_id;   // of the service, once the rows are there; empty before
  std::string run_id;       // ours
  std::string submission;   // the idempotency key, also sent as a label: a job made by a lost reply is found by it
  std::string accelerator;  // empty: the service chooses
  std::string region;
  bool spot = false;
  std::optional<std::string> output_uri;  // gs://...
  std::optional<double> max_cost_usd;
  std::string body;  // the JSON text that is sent
};

// How much there is to train on, for an estimate of a job whose data set the service does not have yet.
struct TokenTotals {
  int64_t rows = 0;
  int64_t tokens = 0;  // of one epoch
  int64_t longest_row = 0;
};

struct JobSpecRequest {
  const RunConfig& config;
  std::string run_id;
  std::optional<std::string> output_uri;
  int64_t max_seq_length = 0;  // tokens; 0: not known (mock mode without a model)
  std::string dataset_id;
  std::string submission;
  std::string config_sha256;
  std::string client_version;
  std::optional<TokenTotals> totals = {};  // for POST /cost-estimates alone
};

// Every setting of model, training and lora that has an effect is in the body, by its own name. Throws Error(kUsage)
// for a setting that a job cannot honour (job_settings.h). A base model that is a folder's name is sent as it is.
JobSpec make_job_spec(const JobSpecRequest& request);

}  // namespace gemma_sft
