// A model that is only asked, not trained: a model folder, a hub id, or a PEFT folder on top of its base.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "configs/run_config.h"
#include "data/text/tokenizer.h"
#include "model/gemma.h"
#include "trainer/training_failure.h"

namespace gemma_sft {

struct InferenceModelSource {
  std::string model;                    // folder or hub id; a folder with adapter_config.json is an adapter
  std::optional<std::string> revision;  // of a hub id
  std::optional<std::string> adapter;   // PEFT folder on top of `model`
  std::optional<std::string> base;      // base of an adapter given as `model`; empty: what its adapter_config.json says
  std::string device = "auto";
  std::optional<Precision> precision;          // empty: bf16 on a GPU, fp32 on the CPU
  const char* memory_remedy = kAnswersRemedy;  // as in WorkPlace
};

struct InferenceModel {
  Gemma model;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<int64_t> stop_ids;         // as transformers has them (model/model_folder.h), else <eos>
  std::vector<int64_t> answer_stop_ids;  // these and <end_of_turn>: of what follows a prompt in the chat template
};

// Throws Error(kModel) and Error(kUsage).
InferenceModel load_inference_model(const InferenceModelSource& source);

// What generated tokens say: without the stop token at their end.
std::string text_of(const InferenceModel& source, const std::vector<int64_t>& output_ids);

// Throws Error(kModel) where an id of the tokenizer has no row in the model's embedding. `place` is where the text
// stands.
void require_known_ids(const InferenceModel& source, const std::string& place, const std::vector<int64_t>& ids);

// The same, and Error(kData) where the model has no room for a prompt so long.
void require_fitting_prompt(const InferenceModel& source, const std::string& place, const std::vector<int64_t>& ids);

// Prompt and answer together are longer than the model's max_position_embeddings.
bool is_beyond_maximum(const InferenceModel& source, size_t prompt_tokens, size_t answer_tokens);

// The folder of the base model of a PEFT folder: `base` where given, else what adapter_config.json names (a path
// relative to the working directory or to the adapter, or a hub id).
std::filesystem::path find_adapter_base(const std::filesystem::path& adapter, const std::optional<std::string>& base);

}  // namespace gemma_sft
