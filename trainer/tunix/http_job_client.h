// The contract of README.md over HTTP. A job is submitted at most once (see submit); how one call is made is
// service_caller.h.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "trainer/tunix/job_client.h"
#include "trainer/tunix/service_caller.h"

namespace gemma_sft {

class HttpJobClient : public JobClient {
 public:
  HttpJobClient(HttpTransport& transport, Clock& clock, HttpJobClientOptions options);

  // For the remedy of a quota error.
  void set_smaller_accelerators(const std::string& list);

  KeyInfo auth_test() override;
  Quota quota(const std::string& project_id, const std::string& accelerator, const std::string& region) override;
  PriceTable accelerators() override;
  ServiceEstimate estimate_cost(const JobSpec& spec) override;
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

 private:
  std::optional<Job> find_submitted(const JobSpec& spec);

  ServiceCaller caller_;
};

}  // namespace gemma_sft
