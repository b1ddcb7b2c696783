#include "trainer/tunix/job_settings.h"

#include <fmt/format.h>

#include "configs/error.h"

namespace gemma_sft {

void require_job_settings(const RunConfig& config) {
  std::string problems;
  const auto refuse = [&](const std::string& setting, const char* why, const char* remedy) {
    problems += fmt::format("{}{}: {}; {}, or train on this machine with --backend native",
                            problems.empty() ? "" : "\n", setting, why, remedy);
  };
  if (config.training.stochastic_rounding) {
    refuse("training.stochastic_rounding", "a job rounds to the nearest", "leave it out");
  }
  if (config.lora.rank > 0 && config.lora.dropout > 0) {
    refuse(fmt::format("lora.dropout: {}", config.lora.dropout),
           "google-tunix hands its model no random numbers, so that nothing would be dropped", "set it to 0");
  }
  if (config.lora.rank > 0 && config.lora.init_from) {
    refuse("lora.init_from: " + *config.lora.init_from, "a job starts from the base model alone", "leave it out");
  }
  if (config.evaluation.keep_best) {
    refuse("evaluation.keep_best", "a job trains without evaluation, and its model is that of the last step",
           "leave it out");
  }
  if (config.evaluation.early_stopping_patience) {
    refuse(fmt::format("evaluation.early_stopping_patience: {}", *config.evaluation.early_stopping_patience),
           "a job trains without evaluation, and to its end", "leave it out");
  }
  if (!problems.empty()) throw Error(ErrorKind::kUsage, problems);
}

std::vector<std::string> job_settings_warnings(const RunConfig& config) {
  std::vector<std::string> warnings;
  if (config.dataset.validation_path || config.dataset.validation_fraction > 0) {
    warnings.emplace_back("validation rows are held out and not sent: a job trains without evaluation");
  }
  if (config.training.activation_checkpointing == ActivationCheckpointing::kAuto) {
    warnings.emplace_back("training.activation_checkpointing: auto: a job computes every block again, as with true");
  }
  if (config.training.step_timeout) {
    warnings.emplace_back(
        "training.step_timeout guards a run on this machine and has no effect on a job; tunix.timeout_seconds ends "
        "one");
  }
  return warnings;
}

}  // namespace gemma_sft
