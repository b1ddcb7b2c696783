// What a run is: plain values, one struct per section of the YAML file, filled by `load_config`
// (configs/load_config.h). Every field here has exactly one row in the table of configs/settings.h, which holds its
// name, range, default and help. An empty optional means "not given": the meaning of that is in the row's help.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gemma_sft {

enum class DataFormat { kTrainingExample, kTunixSft, kTrace, kTokens };
enum class OnBadRecord { kFail, kSkip };
enum class OnLong { kFail, kSkip, kTruncate };
enum class Precision { kFp32, kBf16Mixed, kBf16 };
enum class Scheduler { kLinear, kCosine, kConstant };
enum class OnNonFinite { kStop, kSkip };
enum class ActivationCheckpointing { kOff, kOn, kAuto };
enum class ModelDtype { kFp32, kBf16, kFp16 };

struct ModelSection {
  std::string base_model;                  // hub id such as google/gemma-2b-it, or a folder
  std::optional<std::string> revision;     // commit, branch or tag in the local hub cache; empty: main
  std::optional<int64_t> max_seq_length;   // tokens; empty: the smaller of the model's maximum and 2048
  std::optional<std::string> accelerator;  // model.tunix_job_config.accelerator
  std::optional<std::string> region;       // model.tunix_job_config.region
  bool operator==(const ModelSection&) const = default;
};

struct DatasetSection {
  std::optional<std::string> manifest_path;
  std::optional<std::string> data_path;
  DataFormat format = DataFormat::kTrainingExample;
  std::optional<std::string> validation_path;
  double validation_fraction = 0.0;  // in [0, 1): share of prompts, chosen by a hash of the prompt
  OnBadRecord on_bad_record = OnBadRecord::kFail;
  OnLong on_long = OnLong::kFail;
  std::optional<int64_t> max_samples;
  bool parse_control_tokens = false;
  bool operator==(const DatasetSection&) const = default;
};

struct TrainingSection {
  std::optional<int64_t> max_steps;     // optimizer steps; wins over num_epochs
  double num_epochs = 3;                // may be fractional
  int64_t batch_size = 4;               // examples per micro-batch
  std::optional<int64_t> batch_tokens;  // token budget per micro-batch instead of batch_size
  int64_t gradient_accumulation_steps = 1;
  double learning_rate = 2e-5;
  Scheduler lr_scheduler = Scheduler::kLinear;
  double min_lr_ratio = 0.0;
  std::optional<int64_t> warmup_steps;
  std::optional<double> warmup_ratio;
  double weight_decay = 0.01;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double max_grad_norm = 1.0;  // 0 switches clipping off
  uint64_t seed = 42;
  std::optional<Precision> precision;  // empty: bf16_mixed on CUDA, fp32 on CPU
  bool stochastic_rounding = false;    // of bf16 weights
  bool shuffle = true;
  bool packing = true;
  ActivationCheckpointing activation_checkpointing = ActivationCheckpointing::kOff;
  bool deterministic = false;
  OnNonFinite on_nonfinite = OnNonFinite::kStop;
  bool preflight = true;
  std::optional<double> step_timeout;  // seconds
  std::string optimizer = "adamw";
  bool operator==(const TrainingSection&) const = default;
};

struct LoraSection {
  int64_t rank = 0;  // 0: full fine-tuning
  double alpha = 32;
  double dropout = 0.0;
  std::vector<std::string> target_modules = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                             "gate_proj", "up_proj", "down_proj"};
  bool rslora = false;
  std::optional<std::string> init_from;  // PEFT folder to continue from
  bool operator==(const LoraSection&) const = default;
};

struct EvaluationSection {
  std::optional<int64_t> every;  // optimizer steps; empty: once per epoch and at the end, when there is validation data
  bool keep_best = false;
  std::optional<int64_t> early_stopping_patience;  // evaluations without improvement
  bool operator==(const EvaluationSection&) const = default;
};

struct OutputSection {
  std::string run_dir = "artifacts/training_runs";
  int64_t checkpoint_every = 500;  // optimizer steps; 0: only at the end
  int64_t keep_checkpoints = 2;
  std::optional<ModelDtype> model_dtype;  // empty: the base files' dtype
  std::optional<bool> background_save;    // empty: on a GPU
  bool log_samples = true;
  bool operator==(const OutputSection&) const = default;
};

struct TunixSection {
  bool present = false;  // a `tunix:` section, or model.tunix_job_config, stands in the file
  std::optional<std::string> api_base_url;
  std::optional<std::string> project_id;
  std::optional<std::string> experiment_name;
  std::optional<bool> spot;                 // may be preempted, costs less
  std::optional<int64_t> timeout_seconds;   // after which the service ends the job
  std::optional<double> max_cost_usd;       // more than this is not submitted, and the service stops there
  std::optional<int64_t> keep_checkpoints;  // of the job; empty: output.keep_checkpoints
  bool operator==(const TunixSection&) const = default;
};

struct RunConfig {
  ModelSection model;
  DatasetSection dataset;
  TrainingSection training;
  LoraSection lora;
  EvaluationSection evaluation;
  OutputSection output;
  TunixSection tunix;
  bool operator==(const RunConfig&) const = default;
};

}  // namespace gemma_sft
