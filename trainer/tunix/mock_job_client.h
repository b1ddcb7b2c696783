// A job service inside this process: no network, no time, nothing random. A job moves one step along a fixed script
// each time somebody looks at it, and ends as the scenario says. It trains nothing and has no artifacts.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "trainer/tunix/job_client.h"

namespace gemma_sft {

enum class MockScenario {
  kSuccess,
  kJobFailed,
  kJobTimeout,
  kJobCancelled,
  kOutOfMemory,
  kInvalidApiKey,  // every call is answered with 401
  kQuotaExceeded,  // submitting is answered with 429
};

// Throws Error(kUsage) with the known names.
MockScenario require_mock_scenario(const std::string& name);
std::string mock_scenario_name(MockScenario scenario);

// What the service remembers of a job between two processes.
struct MockJob {
  std::string id;
  std::string submission;
  std::string project_id;
  std::string experiment_name;
  std::string accelerator;
  std::string region;
  MockScenario scenario = MockScenario::kSuccess;
  int64_t total_steps = 0;  // 0: not known
  int64_t looks = 0;        // how often its status was asked for
  bool cancel_wanted = false;
  bool operator==(const MockJob&) const = default;
};

class MockJobClient : public JobClient {
 public:
  // `jobs`: those of earlier processes, oldest first. `save` is called with every job that changed.
  MockJobClient(MockScenario scenario, std::vector<MockJob> jobs, std::function<void(const MockJob&)> save);

  KeyInfo auth_test() override;
  Quota quota(const std::string& project_id, const std::string& accelerator, const std::string& region) override;
  PriceTable accelerators() override;                           // those that are built in
  ServiceEstimate estimate_cost(const JobSpec& spec) override;  // throws Error(kApi): it knows no prices
  std::string upload_dataset(const DatasetUpload& upload, const std::string& project_id,
                             const std::string& idempotency_key) override;
  Job submit(const JobSpec& spec, Attempt attempt) override;
  Job status(const std::string& id) override;
  JobPage list(const JobFilter& filter) override;
  EventPage events(const std::string& id, int64_t after) override;
  EventStreamEnd stream_events(const std::string& id, int64_t after,
                               const std::function<bool(const JobEvent&)>& on_event) override;
  Job cancel(const std::string& id) override;
  ArtifactList artifacts(const std::string& id) override;
  void download(const std::string& id, const Artifact& artifact, ArtifactSink& sink) override;

  // A job that none of the others is, from a run folder elsewhere.
  void remember(const MockJob& job);
  // Steps that the jobs submitted from now on show progress over.
  void set_total_steps(int64_t steps) { total_steps_ = steps; }

 private:
  MockJob& require(const std::string& id);
  void require_key() const;

  MockScenario scenario_;
  std::vector<MockJob> jobs_;
  std::function<void(const MockJob&)> save_;
  int64_t total_steps_ = 0;
};

}  // namespace gemma_sft
