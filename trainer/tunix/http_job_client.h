// The contract of README.md over HTTP: which calls are tried again, what is sent where, what an answer means.
//
// The key goes to the origin of base_url and nowhere else. A job is submitted at most once (see submit).
#pragma once

#include <memory>
#include <random>
#include <string>

#include "trainer/tunix/clock.h"
#include "trainer/tunix/http_transport.h"
#include "trainer/tunix/job_client.h"
#include "trainer/tunix/retry.h"
#include "trainer/tunix/service_errors.h"
#include "trainer/tunix/service_json.h"
#include "trainer/tunix/service_text.h"

namespace gemma_sft {

struct HttpJobClientOptions {
  std::string base_url = "https://api.tunix.ai/v1";
  std::string key;
  std::string key_origin = "TUNIX_API_KEY";
  double retry_seconds = 300;  // how long a call is tried again
  uint64_t seed = 0;           // of the delays
  ServiceContext context = {};
};

// Throws Error(kUsage) unless it is https, or http to this machine, without a name or password in it. Gives it without
// a '/' at the end.
std::string require_base_url(const std::string& url);

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
  struct Call;
  HttpRequest make_request(HttpMethod method, const std::string& path) const;
  HttpResponse send_once(HttpRequest request, const Call& call);
  HttpResponse call(const HttpRequest& request, const Call& call);
  [[noreturn]] void fail(const HttpResponse& response, const Call& call) const;
  [[noreturn]] void give_up(const std::string& problem, const Retry& retry, const Call& call) const;
  bool passes(const HttpResponse& response) const;
  void require_passing(const TransportFailure& failure) const;
  std::optional<double> retry_after(const HttpResponse& response) const;
  std::optional<Job> find_submitted(const JobSpec& spec);
  uint64_t uploaded_bytes(const std::string& path);

  HttpTransport& transport_;
  Clock& clock_;
  HttpJobClientOptions options_;
  HttpOrigin origin_;
  ServiceText text_;
  std::mt19937_64 random_;
};

}  // namespace gemma_sft
