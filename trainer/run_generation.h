// `gemma-sft generate`: prompts -> what a model continues them with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "configs/run_config.h"

namespace gemma_sft {

// How the next token is chosen. With temperature 0 it is the most probable one and the rest does not matter.
struct SamplingOptions {
  double temperature = 0;  // logits are divided by it
  int64_t top_k = 0;       // keep the k most probable tokens; 0: all
  double top_p = 1;        // keep the fewest most probable tokens whose probabilities sum to at least this
  uint64_t seed = 42;      // of row 0; row i draws from seed + i, whatever was asked before it
};

struct GenerationRequest {
  std::string model;                           // model folder, hub id or PEFT folder
  std::optional<std::string> revision;         // of a hub id
  std::optional<std::string> adapter;          // PEFT folder on top of `model`
  std::optional<std::string> base;             // base model of a PEFT folder; empty: what its adapter_config.json says
  std::optional<std::string> prompt;           // one of prompt and input
  std::optional<std::filesystem::path> input;  // JSONL: {id, prompt} or {id, input_ids}
  int64_t max_new_tokens = 256;
  bool ignore_eos = false;  // go on until max_new_tokens
  bool raw = false;         // the prompt is the whole text, after <bos>: no chat template, control tokens parsed
  bool parse_control_tokens = false;  // in prompts under the template, as transformers does
  SamplingOptions sampling;
  std::string device = "auto";
  std::optional<Precision> precision;  // empty: bf16 on CUDA, fp32 on the CPU
};

struct GeneratedRow {
  std::string id;                   // the row's, or "<file>:<line>"; "prompt" for --prompt
  std::vector<int64_t> output_ids;  // the new ones only, the stop token included
  std::string text;                 // without the stop token
  bool beyond_maximum = false;      // prompt and output are longer than the model's max_position_embeddings
};

// Calls `take` for each row when it is ready, in the order of the input. Throws Error: kData for a row that cannot be
// used, with file:line, before anything is generated; kModel; kUsage. Ends early, between tokens, when stop_signal()
// says so.
void run_generation(const GenerationRequest& request, const std::function<void(const GeneratedRow&)>& take);

// One row of the output file: {"id": ..., "output_ids": [...], "text": ...}, without a newline.
std::string to_json(const GeneratedRow& row);

}  // namespace gemma_sft
