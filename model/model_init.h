// New model folders with random weights. No torch here.
#pragma once

#include <cstdint>
#include <filesystem>

#include "configs/run_config.h"
#include "data/files/file_system.h"
#include "model/gemma_config.h"

namespace gemma_sft {

// Random weights (normal, standard deviation config.initializer_range, norms 0) in a new Hugging Face folder, tokenizer
// files copied from `tokenizer_folder`. `config.vocab_size` 0 stands for the tokenizer's size; fewer rows than the
// tokenizer has pieces are refused, more are fine. Deterministic in `seed`: a tensor's values depend on the seed, its
// name and its size alone. Writes through a temporary folder and a rename; refuses an existing one. Throws
// Error(kUsage), Error(kModel), Error(kIo).
void init_model_folder(const GemmaConfig& config, const std::filesystem::path& tokenizer_folder,
                       const std::filesystem::path& destination, ModelDtype dtype, uint64_t seed, FileSystem& files);

}  // namespace gemma_sft
