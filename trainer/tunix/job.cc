#include "trainer/tunix/job.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace gemma_sft {
namespace {

constexpr std::array<const char*, 7> kStateNames = {"pending", "running",   "cancel_requested", "completed",
                                                    "failed",  "cancelled", "timeout"};

bool speaks_of_memory(const JobProblem& problem) {
  if (problem.code == "out_of_memory") return true;
  for (const char* words : {"RESOURCE_EXHAUSTED", "Ran out of memory in memory space", "CUDA out of memory"}) {
    if (problem.message.find(words) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

const char* job_state_name(JobState state) { return kStateNames.at(static_cast<size_t>(state)); }

std::optional<JobState> find_job_state(std::string_view name) {
  const auto found = std::find(kStateNames.begin(), kStateNames.end(), name);
  if (found == kStateNames.end()) return std::nullopt;
  return static_cast<JobState>(found - kStateNames.begin());
}

std::vector<std::string> job_state_names() { return {kStateNames.begin(), kStateNames.end()}; }

bool is_terminal(JobState state) {
  return state == JobState::kCompleted || state == JobState::kFailed || state == JobState::kCancelled ||
         state == JobState::kTimeout;
}

bool is_job_id(std::string_view text) {
  if (!text.starts_with("job_") && !text.starts_with("mock-")) return false;
  const std::string_view rest = text.substr(text.find_first_of("_-") + 1);
  return !rest.empty() && rest.size() <= 64 && std::all_of(rest.begin(), rest.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  });
}

Error job_error(const Job& job) {
  const std::string what =
      job.problem && !job.problem->message.empty() ? job.problem->message : "the service gave no reason";
  const std::string hint = job.problem && !job.problem->hint.empty() ? "\n" + job.problem->hint : "";
  if (job.state == JobState::kCancelled) {
    return Error(ErrorKind::kJobCancelled, fmt::format("{}: cancelled", job.id));
  }
  if (job.state == JobState::kTimeout) {
    return Error(ErrorKind::kTimeout,
                 fmt::format("{}: ended by its time limit: {}; raise tunix.timeout_seconds, or train fewer steps{}",
                             job.id, what, hint));
  }
  if (job.problem && speaks_of_memory(*job.problem)) {
    return Error(
        ErrorKind::kOutOfMemory,
        fmt::format("{}: out of memory: {}\nHalve training.batch_size and double training.gradient_accumulation_steps, "
                    "set training.activation_checkpointing: true, lora.rank or training.precision: bf16, or take a "
                    "larger accelerator: gemma-sft jobs estimate --config FILE says which ones hold the run{}",
                    job.id, what, hint));
  }
  return Error(ErrorKind::kJobFailed, fmt::format("{}: failed: {}{}", job.id, what, hint));
}

std::string describe_job(const Job& job) {
  std::string text = job_state_name(job.state);
  if (!job.phase.empty() && !is_terminal(job.state)) text += ", " + job.phase;
  if (job.total_steps > 0 && job.step > 0) text += fmt::format(", step {} of {}", job.step, job.total_steps);
  if (job.loss) text += fmt::format(", loss {:.4f}", *job.loss);
  if (job.cost_usd) text += fmt::format(", ${:.2f}", *job.cost_usd);
  return text;
}

}  // namespace gemma_sft
