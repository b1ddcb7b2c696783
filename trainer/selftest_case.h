// A case of `gemma-sft selftest`: a model folder, texts, and what a reference computes with them. A folder of
//   model/                a Hugging Face model folder (no tokenizer needed)
//   case.json             "name", and "tolerances": "logits_abs", "loss_abs", "grad_rel", each a number from 0; other
//                         members are ignored
//   expected.safetensors  input_ids I64 [batch, time], lengths I64 [batch], loss_mask U8 [batch, time] (1: the token
//                         itself is a target), logits F32 [batch, time, vocabulary], loss F32 (mean -log p of the
//                         targets) and grad.<parameter as in Hugging Face> F32; other tensors are ignored
// What lies past a row's length is ignored, and so is the mask of a row's first token, which nothing predicts. No
// torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/files/safetensors.h"
#include "data/records/example.h"
#include "model/gemma_config.h"

namespace gemma_sft {

struct SelftestTolerances {
  double logits_abs = 0;
  double loss_abs = 0;
  double grad_rel = 0;
};

// Immutable after read_selftest_case.
struct SelftestCase {
  struct Gradient {
    std::string name;       // in the file, without "grad."
    std::string parameter;  // our name of the weight; lm_head.weight is the tied embedding
  };

  std::filesystem::path folder;
  std::string name;
  SelftestTolerances tolerances;
  GemmaConfig config;
  std::vector<TokenizedExample> rows;  // without what lies past their lengths
  int64_t time = 0;                    // places of a row in the file
  float loss = 0;
  std::vector<Gradient> gradients;            // at least one, in the order of the file
  std::vector<std::string> without_gradient;  // our weights that the file has no gradient of
  SafetensorsFile expected;

  std::filesystem::path model_folder() const { return folder / "model"; }
  // logits [count, vocabulary] of row `row` from position `first` on, fp32.
  std::vector<float> logits(int64_t row, int64_t first, int64_t count) const;
  // Fills `destination`, which holds the whole tensor.
  void read_gradient(const Gradient& gradient, float* destination) const;
};

// Throws Error(kData) with every problem of case.json or of expected.safetensors, Error(kModel) when the model folder
// is refused. Reads the model's headers, not its weights.
SelftestCase read_selftest_case(const std::filesystem::path& folder);

// The case folders below `folder`, ascending by name: those with case.json, expected.safetensors and model/. Throws
// Error(kIo) when there is none, or the folder cannot be listed.
std::vector<std::filesystem::path> find_selftest_cases(const std::filesystem::path& folder);

// share/gemma-sft/selftest beside the folder that holds the running program: in an installation and in a build tree.
std::filesystem::path shipped_selftest_folder();

}  // namespace gemma_sft
