// Whether model.base_model can be a model that this program trains, as far as its name tells. A folder is judged later,
// by its config.json.
#pragma once

#include <filesystem>
#include <string>

namespace gemma_sft {

// "google/gemma-2b-it" and "gemma-2b" can be ids on the hub; "./x", "/x", "a/b/c" and "x/" are folders.
bool can_be_hub_id(const std::string& name);

// Empty: nothing speaks against it. Looks for a folder of that name as find_configured_path does.
std::string model_name_problem(const std::string& name, const std::filesystem::path& config_file);

}  // namespace gemma_sft
