// `completed.json` in a run folder: the last file a run writes, once final_model/ is complete. A run that has it, for
// the same configuration and with final_model/ intact, is left alone. No torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "configs/run_config.h"
#include "data/files/file_system.h"

namespace gemma_sft {

inline constexpr const char* kCompletionName = "completed.json";
inline constexpr const char* kFinalModelName = "final_model";

struct RunCompletion {
  std::string run_id;
  std::string config_sha256;  // of identity_yaml: a run that is to train longer is not complete
  int64_t step = 0;           // finished optimizer steps
  int64_t model_step = 0;     // the step final_model is from: the last one, or the best
  bool early_stopped = false;
  std::optional<double> final_loss;
  std::optional<double> final_eval_loss;
  std::map<std::string, std::string> final_model;  // SHA-256 by file name
};

void write_completion(const std::filesystem::path& run_folder, const RunCompletion& completion, FileSystem& files);
// The run goes on from here: it is complete no more, even if the power fails.
void remove_completion(const std::filesystem::path& run_folder, FileSystem& files);

// nullopt: the run is not complete, is another one's, was for another configuration, or a file of final_model is not as
// it was.
std::optional<RunCompletion> find_completion(const std::filesystem::path& run_folder, const std::string& run_id,
                                             const RunConfig& config);

std::string config_sha256(const RunConfig& config);

}  // namespace gemma_sft
