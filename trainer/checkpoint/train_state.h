// Everything that says where a run stands, besides tensors and random state: plain values. No torch.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "configs/run_config.h"
#include "data/batches/batch_stream.h"

namespace gemma_sft {

struct BestEvaluation {
  int64_t step = 0;
  double loss = 0;
};

// After a finished optimizer step.
struct TrainState {
  int64_t step = 0;        // finished optimizer steps
  DataCursor cursor = {};  // the next rows to train on
  double epoch = 0;        // finished part of the run in epochs
  std::optional<double> last_loss = {};
  std::optional<double> last_eval_loss = {};
  std::optional<BestEvaluation> best = {};
  int64_t evaluated_step = 0;  // the last step that an evaluation was completed after
  int64_t evaluations_without_improvement = 0;
  int64_t skipped_in_a_row = 0;  // steps whose loss was not finite (training.on_nonfinite: skip)
};

// What a run is made from: a checkpoint may only be continued with the same.
struct RunOrigin {
  RunConfig config;
  Precision precision = Precision::kFp32;  // in use
  int64_t total_steps = 0;
  std::string data_sha256;        // of the training rows' file
  std::string validation_sha256;  // of dataset.validation_path's file; empty without one
  std::string tokenizer_sha256;
  std::string model_sha256;  // over the base model's config.json and safetensors files
  std::string model_folder;  // where the base model was, for export
  std::string device;
  int threads = 0;
  std::map<std::string, std::string> versions;  // "gemma-sft", "libtorch"
};

}  // namespace gemma_sft
