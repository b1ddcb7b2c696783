// What a job service tells about jobs: plain values. Every text here has been through ServiceText (service_text.h):
// bounded, without control characters and without our key, so that it may be printed as it is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/error.h"

namespace gemma_sft {

enum class JobState { kPending, kRunning, kCancelRequested, kCompleted, kFailed, kCancelled, kTimeout };

const char* job_state_name(JobState state);  // "pending", "cancel_requested", ...
std::optional<JobState> find_job_state(std::string_view name);
std::vector<std::string> job_state_names();
bool is_terminal(JobState state);

// Why a job failed.
struct JobProblem {
  std::string code;  // "out_of_memory", ...
  std::string message;
  std::string hint;
  bool operator==(const JobProblem&) const = default;
};

struct Job {
  std::string id = {};
  JobState state = JobState::kPending;
  std::string phase = {};  // "queued", "loading", "training", ...; may be empty
  double progress = 0;     // 0 to 1
  int64_t step = 0;
  int64_t total_steps = 0;
  std::optional<double> loss = {};
  std::optional<double> cost_usd = {};
  std::optional<double> eta_seconds = {};
  std::string created_at = {};
  std::string finished_at = {};
  std::string accelerator = {};
  std::string region = {};
  std::string experiment_name = {};
  std::string dashboard_url = {};
  std::string submission = {};  // spec.labels.submission: which client's POST made it
  std::optional<JobProblem> problem = {};
  bool operator==(const Job&) const = default;
};

struct JobFilter {
  std::string project_id;
  std::optional<JobState> state;
  std::optional<std::string> experiment;
  int64_t limit = 20;  // 1 to 100
  std::optional<std::string> after;
};

struct JobPage {
  std::vector<Job> jobs;            // newest first
  std::optional<std::string> next;  // the `after` of the next page
};

struct JobEvent {
  int64_t sequence = 0;  // from 1, without gaps
  std::string time;
  std::string type;  // log, metric, checkpoint, status, ...
  std::string level;
  std::string message;
};

struct EventPage {
  std::vector<JobEvent> events;
  int64_t last_sequence = 0;
};

struct Artifact {
  std::string path;  // below the job's folder, as the service says it: not checked, see download.h
  std::string kind;  // final_model, checkpoint, metrics, log, run_manifest
  uint64_t size = 0;
  std::string sha256;  // 64 hex digits
};

struct ArtifactList {
  std::vector<Artifact> artifacts;
  bool complete = false;  // nothing will be added
};

struct KeyInfo {
  std::string prefix;      // "tunix_sk_dev"
  std::string expires_at;  // empty: never, or not told
  std::vector<std::string> projects;
};

struct Quota {
  int64_t limit = 0;
  int64_t in_use = 0;
  int64_t available = 0;
  std::string resets_at = {};  // empty: not told
  std::string console_url = {};
};

// What the service expects of a job; what it does not say is absent.
struct ServiceEstimate {
  std::optional<int64_t> steps, tokens;
  std::optional<double> hours_low, hours_high;
  std::optional<double> usd_low, usd_high;
};

// A failure that the service reported, with the code of its error body.
class ApiError : public Error {
 public:
  ApiError(ErrorKind kind, const std::string& message, int status, std::string code)
      : Error(kind, message), status_(status), code_(std::move(code)) {}
  int status() const { return status_; }
  const std::string& code() const { return code_; }

 private:
  int status_;
  std::string code_;
};

// Is it a name that a job can have (job_... of the service, mock-... of mock mode)? Only such names become part of an
// address or of a message.
bool is_job_id(std::string_view text);

// The error that a job which did not complete ends the program with: kJobFailed, kOutOfMemory, kJobCancelled or
// kTimeout, with remedies. Memory is recognised in TPU and in CUDA words. `job` is terminal and not completed.
Error job_error(const Job& job);

// "running, training, step 40 of 315, loss 1.234"
std::string describe_job(const Job& job);

}  // namespace gemma_sft
