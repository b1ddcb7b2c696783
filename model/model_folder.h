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

// Everything that export_model will read of a base's folder besides its weights can be read: a long training must not
// end in finding out. Throws Error(kModel) or Error(kIo).
void require_carried_files(const std::filesystem::path& model_folder);

// write_new_file, and the SHA-256 of the bytes.
std::string write_digested_file(FileSystem& files, const std::filesystem::path& path, const std::string& bytes);

// The bytes of a config.json with every "torch_dtype" and "dtype" of the text model set to `dtype`; all else is kept.
std::string with_dtype(const std::string& config_json, ModelDtype dtype);

// generation_config.json for a model that has none: ids for padding and start, and both tokens that end an answer
// (<eos> and <end_of_turn>). Ids come from the folder's tokenizer; without one, from its config.json.
std::string new_generation_config(const std::filesystem::path& model_folder);

// The text of a generation_config.json whose "eos_token_id" also has the folder's <end_of_turn>, which ends what a
// model trained on turns says; published ones of models that are no chat models have <eos> alone. As it is where it has
// both, or where the folder has no tokenizer of ours.
std::string with_end_of_turn(const std::string& generation_config, const std::filesystem::path& model_folder);

// The ids at which transformers ends an answer: "eos_token_id" of generation_config.json, else of config.json; empty
// where neither says. Throws Error(kModel) where it is neither an id nor a list of some.
std::vector<int64_t> find_stop_ids(const std::filesystem::path& model_folder);

// The Jinja text with which transformers writes a chat: chat_template.jinja, else "chat_template" of
// tokenizer_config.json (of several the one called "default") or of chat_template.json; empty where there is none.
// Throws Error(kModel) for a file that is no JSON object.
std::string read_chat_template(const std::filesystem::path& model_folder);
// Whether it writes turns as Gemma does, and as rows are written here.
bool is_gemma_template(const std::string& chat_template);

}  // namespace gemma_sft
