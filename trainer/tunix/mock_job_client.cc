#include "trainer/tunix/mock_job_client.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "trainer/tunix/service_errors.h"

namespace gemma_sft {
namespace {

constexpr std::array<std::pair<const char*, MockScenario>, 7> kScenarios = {
    {{"success", MockScenario::kSuccess},
     {"job_failed", MockScenario::kJobFailed},
     {"job_timeout", MockScenario::kJobTimeout},
     {"job_cancelled", MockScenario::kJobCancelled},
     {"out_of_memory", MockScenario::kOutOfMemory},
     {"invalid_api_key", MockScenario::kInvalidApiKey},
     {"quota_exceeded", MockScenario::kQuotaExceeded}}};

struct ScriptLine {
  JobState state;
  const char* phase;
  double progress;
};
// What a job shows at its first, second, ... look; then how it ended.
constexpr std::array<ScriptLine, 8> kScript = {{{JobState::kPending, "validating", 0},
                                                {JobState::kPending, "queued", 0},
                                                {JobState::kRunning, "loading", 0},
                                                {JobState::kRunning, "training", 0.25},
                                                {JobState::kRunning, "training", 0.5},
                                                {JobState::kRunning, "training", 0.75},
                                                {JobState::kRunning, "training", 1},
                                                {JobState::kRunning, "saving", 1}}};
constexpr int64_t kFailsAt = 5;  // looks after which a scenario that does not succeed has ended

void end(Job& job, MockScenario scenario) {
  switch (scenario) {
    case MockScenario::kJobFailed:
      job.state = JobState::kFailed;
      job.problem = JobProblem{"runner_failed", "the scenario of mock mode ends in a failure", ""};
      return;
    case MockScenario::kJobTimeout:
      job.state = JobState::kTimeout;
      job.problem = JobProblem{"timeout", "the scenario of mock mode ends by the time limit", ""};
      return;
    case MockScenario::kJobCancelled: job.state = JobState::kCancelled; return;
    case MockScenario::kOutOfMemory:
      job.state = JobState::kFailed;
      job.problem = JobProblem{
          "runner_failed", "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm (the scenario of mock mode)", ""};
      return;
    default:
      job.state = JobState::kCompleted;
      job.progress = 1;
      return;
  }
}

// The job after `looks` looks: a pure function.
Job shown(const MockJob& mock, int64_t looks) {
  Job job;
  job.id = mock.id;
  job.total_steps = mock.total_steps;
  job.accelerator = mock.accelerator;
  job.region = mock.region;
  job.experiment_name = mock.experiment_name;
  job.submission = mock.submission;
  const auto length = mock.scenario == MockScenario::kSuccess ? static_cast<int64_t>(kScript.size()) : kFailsAt;
  if (looks > 0) {
    const ScriptLine& line = kScript[static_cast<size_t>(std::min(looks, length) - 1)];
    job.state = line.state;
    job.phase = line.phase;
    job.progress = line.progress;
  }
  if (looks > length) {
    end(job, mock.scenario);
  } else if (mock.cancel_wanted) {
    job.state = JobState::kCancelled;
  }
  if (is_terminal(job.state)) job.phase.clear();
  job.step = static_cast<int64_t>(job.progress * static_cast<double>(job.total_steps));
  return job;
}

}  // namespace

MockScenario require_mock_scenario(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [known, scenario] : kScenarios) {
    if (name == known) return scenario;
    names.push_back(known);
  }
  throw Error(ErrorKind::kUsage,
              fmt::format("TUNIX_MOCK_SCENARIO: expected one of {}; unset it for success", fmt::join(names, ", ")));
}

std::string mock_scenario_name(MockScenario scenario) { return kScenarios.at(static_cast<size_t>(scenario)).first; }

MockJobClient::MockJobClient(MockScenario scenario, std::vector<MockJob> jobs, std::function<void(const MockJob&)> save)
    : scenario_(scenario), jobs_(std::move(jobs)), save_(std::move(save)) {}

void MockJobClient::require_key() const {
  if (scenario_ == MockScenario::kInvalidApiKey) {
    throw service_error({.status = 401, .code = "invalid_api_key", .message = "Invalid API key"}, {});
  }
}

MockJob& MockJobClient::require(const std::string& id) {
  require_key();
  for (MockJob& job : jobs_) {
    if (job.id == id) return job;
  }
  throw ApiError(ErrorKind::kApi,
                 fmt::format("TunixAPIError: 404 Not Found - there is no job {} in mock mode; set TUNIX_MODE=real to "
                             "ask the service, or TRAINING_OUTPUT_DIR to the folder that holds its run folder",
                             id),
                 404, "not_found");
}

void MockJobClient::remember(const MockJob& job) {
  const bool known = std::any_of(jobs_.begin(), jobs_.end(), [&](const MockJob& other) { return other.id == job.id; });
  if (!known) jobs_.push_back(job);
}

KeyInfo MockJobClient::auth_test() {
  require_key();
  return {.prefix = "mock", .expires_at = "", .projects = {}};
}

Quota MockJobClient::quota(const std::string&, const std::string&, const std::string&) {
  require_key();
  if (scenario_ == MockScenario::kQuotaExceeded) return {.limit = 1, .in_use = 1, .available = 0};
  return {.limit = 1, .in_use = 0, .available = 1};
}

PriceTable MockJobClient::accelerators() {
  require_key();
  return built_in_prices();
}

ServiceEstimate MockJobClient::estimate_cost(const JobSpec&) {
  throw Error(ErrorKind::kApi, "mock mode knows no prices: the estimate is made from the price table alone");
}

std::string MockJobClient::upload_dataset(const DatasetUpload& upload, const std::string&, const std::string&) {
  require_key();
  return "ds_mock" + upload.sha256.substr(0, 12);
}

Job MockJobClient::submit(const JobSpec& spec, Attempt) {
  require_key();
  for (const MockJob& job : jobs_) {
    if (job.submission == spec.submission) return shown(job, job.looks);
  }
  if (scenario_ == MockScenario::kQuotaExceeded) {
    throw service_error({.status = 429, .code = "quota_exceeded", .message = "TPU quota exceeded"}, {});
  }
  MockJob job;
  job.id = "mock-" + sha256_hex(spec.submission).substr(0, 12);
  job.submission = spec.submission;
  job.project_id = spec.project_id;
  job.experiment_name = spec.experiment_name;
  job.accelerator = spec.accelerator;
  job.region = spec.region;
  job.scenario = scenario_;
  job.total_steps = total_steps_;
  jobs_.push_back(job);
  save_(job);
  return shown(job, 0);
}

Job MockJobClient::status(const std::string& id) {
  MockJob& job = require(id);
  if (!is_terminal(shown(job, job.looks).state)) {
    ++job.looks;
    save_(job);
  }
  return shown(job, job.looks);
}

JobPage MockJobClient::list(const JobFilter& filter) {
  require_key();
  JobPage page;
  bool begun = !filter.after;
  for (auto job = jobs_.rbegin(); job != jobs_.rend(); ++job) {
    const Job now = shown(*job, job->looks);
    if (!begun) {
      begun = job->id == *filter.after;
      continue;
    }
    if (!filter.project_id.empty() && job->project_id != filter.project_id) continue;
    if (filter.state && now.state != *filter.state) continue;
    if (filter.experiment && now.experiment_name != *filter.experiment) continue;
    if (static_cast<int64_t>(page.jobs.size()) == filter.limit) {
      page.next = page.jobs.back().id;
      break;
    }
    page.jobs.push_back(now);
  }
  return page;
}

EventPage MockJobClient::events(const std::string& id, int64_t after) {
  const MockJob& job = require(id);
  EventPage page;
  page.last_sequence = job.looks;
  for (int64_t look = after + 1; look <= job.looks; ++look) {
    page.events.push_back(
        {.sequence = look, .time = "", .type = "status", .level = "info", .message = describe_job(shown(job, look))});
  }
  return page;
}

EventStreamEnd MockJobClient::stream_events(const std::string& id, int64_t after,
                                            const std::function<bool(const JobEvent&)>& on_event) {
  for (const JobEvent& event : events(id, after).events) {
    after = event.sequence;
    if (!on_event(event)) return {EventStreamEnd::Why::kStopped, after};
  }
  return {EventStreamEnd::Why::kClosed, after};
}

Job MockJobClient::cancel(const std::string& id) {
  MockJob& job = require(id);
  if (!is_terminal(shown(job, job.looks).state)) {
    job.cancel_wanted = true;
    save_(job);
  }
  return shown(job, job.looks);
}

ArtifactList MockJobClient::artifacts(const std::string& id) {
  const MockJob& job = require(id);
  return {.artifacts = {}, .complete = is_terminal(shown(job, job.looks).state)};
}

void MockJobClient::download(const std::string& id, const Artifact& artifact, ArtifactSink&) {
  throw Error(ErrorKind::kApi, fmt::format("{}: {}: mock mode trains nothing and has no files", id, artifact.path));
}

}  // namespace gemma_sft
