// Finds a model: a folder, or in the local Hugging Face cache, offline: never opens a socket.
// Order: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub;
// "~" and "$NAME" in them are filled in.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "configs/run_config.h"

namespace gemma_sft {

// `model` is a folder or a hub id ("google/gemma-2b-it"); `revision` a branch, tag or commit of the hub (empty: main),
// which a folder does not have.
// Gives the folder that holds config.json. Throws Error(kModel): a folder that does not exist or has no config.json; a
// hub id that is not in the cache, with the exact download command and that it is gated.
std::filesystem::path require_model_folder(const std::string& model, const std::optional<std::string>& revision);

// model.base_model of a configuration: a folder, found as every path of a configuration file is, else a hub id. Throws
// Error(kModel).
std::filesystem::path find_base_model(const ModelSection& model, const std::filesystem::path& config_file);

// The folder of a hub id in the cache: "models--google--gemma-2b-it".
std::string cache_folder_name(const std::string& hub_id);

}  // namespace gemma_sft
