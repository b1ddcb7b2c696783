#include "trainer/run_completion.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "configs/load_config.h"
#include "data/files/sha256.h"
#include "trainer/checkpoint/json_document.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json or_null(const std::optional<double>& value) { return value ? json(*value) : json(nullptr); }

std::optional<double> number_or_nothing(const json& value) {
  return value.is_null() ? std::nullopt : std::optional<double>(value.get<double>());
}

RunCompletion parse(const json& document) {
  RunCompletion completion;
  completion.run_id = document.at("run_id").get<std::string>();
  completion.config_sha256 = document.at("config_sha256").get<std::string>();
  completion.step = whole_number(document.at("step"), "step");
  completion.model_step = whole_number(document.at("model_step"), "model_step");
  completion.early_stopped = document.at("early_stopped").get<bool>();
  completion.final_loss = number_or_nothing(document.at("final_loss"));
  completion.final_eval_loss = number_or_nothing(document.at("final_eval_loss"));
  completion.final_model = document.at("final_model").get<std::map<std::string, std::string>>();
  return completion;
}

// A model is more than one file, each of them in its folder.
bool names_a_model(const std::map<std::string, std::string>& sha256) {
  const auto is_weights = [](const auto& file) { return file.first.ends_with(".safetensors"); };
  const auto is_elsewhere = [](const auto& file) { return fs::path(file.first).filename() != fs::path(file.first); };
  return std::any_of(sha256.begin(), sha256.end(), is_weights) &&
         std::none_of(sha256.begin(), sha256.end(), is_elsewhere);
}

}  // namespace

void write_completion(const fs::path& run_folder, const RunCompletion& completion, FileSystem& files) {
  const json document = {{"run_id", completion.run_id},
                         {"config_sha256", completion.config_sha256},
                         {"step", completion.step},
                         {"model_step", completion.model_step},
                         {"early_stopped", completion.early_stopped},
                         {"final_loss", or_null(completion.final_loss)},
                         {"final_eval_loss", or_null(completion.final_eval_loss)},
                         {"final_model", completion.final_model}};
  write_file_durably(files, run_folder / kCompletionName, document.dump(2) + "\n");
}

void remove_completion(const fs::path& run_folder, FileSystem& files) {
  if (!fs::exists(fs::symlink_status(run_folder / kCompletionName))) return;
  files.remove(run_folder / kCompletionName);
  files.sync_directory(run_folder);
}

std::optional<RunCompletion> find_completion(const fs::path& run_folder, const std::string& run_id,
                                             const RunConfig& config) {
  try {
    if (!fs::exists(run_folder / kCompletionName)) return std::nullopt;
    const RunCompletion completion = parse(read_json_document(run_folder / kCompletionName));
    if (completion.run_id != run_id || completion.config_sha256 != config_sha256(config)) return std::nullopt;
    if (!names_a_model(completion.final_model)) return std::nullopt;
    for (const auto& [name, sha256] : completion.final_model) {
      if (sha256_file(run_folder / kFinalModelName / name) != sha256) return std::nullopt;
    }
    return completion;
  } catch (const std::exception&) {
    return std::nullopt;  // whatever is wrong with it, the checkpoints decide
  }
}

std::string config_sha256(const RunConfig& config) { return sha256_hex(identity_yaml(config)); }

}  // namespace gemma_sft
