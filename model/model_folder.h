// The files of a Hugging Face model folder that are not weights: config.json, generation_config.json, tokenizer files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "configs/run_config.h"
#include "data/files/file_system.h"
#include "model/gemma_config.h"

namespace gemma_sft {

// Copies what there is of the tokenizer's and processor's files, byte for byte. SHA-256 by file name.
std::map<std::string, std::string> copy_tokenizer_files(FileSystem& files, const std::filesystem::path& from,
                                                        const std::filesystem::path& to);

// write_new_file, and the SHA-256 of the bytes.
std::string write_digested_file(FileSystem& files, const std::filesystem::path& path, const std::string& bytes);

// The bytes of a config.json with every "torch_dtype" and "dtype" of the text model set to `dtype`; all else is kept.
std::string with_dtype(const std::string& config_json, ModelDtype dtype);

// generation_config.json for a model that has none: ids for padding and start, and both tokens that end an answer
// (<eos> and <end_of_turn>). Ids come from the folder's tokenizer; without one, from its config.json.
std::string new_generation_config(const std::filesystem::path& model_folder);

}  // namespace gemma_sft
