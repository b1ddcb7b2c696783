// `gemma-sft eval`: a model's answers to the prompts of a file against the expected ones, and its loss on them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "configs/run_config.h"
#include "trainer/run_generation.h"
#include "trainer/training_failure.h"

namespace gemma_sft {

struct EvaluationRequest {
  std::string model;  // as in GenerationRequest
  std::optional<std::string> revision;
  std::optional<std::string> adapter;
  std::optional<std::string> base;
  std::filesystem::path input;  // rows of `format`; a row with "prompt" and "expected_answer" is taken, too
  DataFormat format = DataFormat::kTrainingExample;
  bool parse_control_tokens = false;  // as dataset.parse_control_tokens of the training
  std::optional<int64_t> max_samples;
  int64_t max_new_tokens = 256;
  SamplingOptions sampling;
  std::string device = "auto";
  std::optional<Precision> precision;
  const char* memory_remedy = kAnswersRemedy;  // as in WorkPlace: what whoever asks may change
};

struct EvaluatedRow {
  std::string id;
  std::string prompt;    // the last user turn
  std::string expected;  // the last model turn, or expected_answer
  std::string generated;
  bool correct = false;
  bool beyond_maximum = false;  // as in GeneratedRow
};

struct EvaluationSummary {
  int64_t rows = 0;
  int64_t correct = 0;
  double exact_match = 0;      // correct / rows
  std::optional<double> loss;  // mean -log p of the expected tokens; empty for expected_answer rows
  int64_t target_tokens = 0;
  int64_t beyond_maximum = 0;  // rows
};

// The part of an answer that is compared: what follows the last "Answer:", else all of it; white space around it is
// dropped.
std::string extract_answer(const std::string& text);

// Calls `take` for each row in order. Throws Error as run_generation does.
EvaluationSummary run_evaluation(const EvaluationRequest& request,
                                 const std::function<void(const EvaluatedRow&)>& take);

std::string to_json(const EvaluatedRow& row);

}  // namespace gemma_sft
