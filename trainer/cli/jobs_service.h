// The job service that a command speaks to: mock or real, as the environment says, with its key and its address.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "configs/environment.h"
#include "trainer/cli/output.h"
#include "trainer/tunix/clock.h"
#include "trainer/tunix/http_transport.h"
#include "trainer/tunix/job_client.h"
#include "trainer/tunix/job_record.h"
#include "trainer/tunix/price_table.h"

namespace gemma_sft {

struct ServiceRequest {
  std::optional<std::string> base_url;    // --base-url
  std::optional<std::string> configured;  // tunix.api_base_url, where there is a configuration
  std::optional<std::string> job_id;      // its run folder knows where it was submitted
  double retry_seconds = 300;             // how long a call is tried again, where TUNIX_RETRY_SECONDS does not say it
};

inline constexpr double kBriefly = 10;  // retry_seconds of commands that only ask

// Mode, key and address are read once. While it holds a key the process leaves no core dump.
class JobService {
 public:
  // Throws Error(kAuthentication) when real mode has no key, Error(kUsage) for an address or a mode that cannot be,
  // Error(kIo) when only a record that cannot be read would say where the job is.
  JobService(const ServiceRequest& request, const EnvironmentReader& environment, const Output& output);
  ~JobService();

  JobClient& client() { return *client_; }
  Clock& clock() { return real_clock(); }
  bool is_mock() const { return is_mock_; }
  const char* mode() const { return is_mock_ ? "mock" : "real"; }
  const char* mark() const { return is_mock_ ? " (mock mode)" : ""; }  // behind every line about a job
  const std::string& base_url() const { return base_url_; }
  double poll_seconds() const { return is_mock_ ? 0 : 2; }
  void set_smaller_accelerators(const std::string& list);  // for the remedy of a quota error

  // Mock mode: what the jobs submitted from now on belong to. Not owned; must outlive the last call.
  void set_mock_run(const std::filesystem::path& folder, JobRecord& record, std::optional<int64_t> total_steps);

 private:
  void open_real(const EnvironmentReader& environment, double retry_seconds, const Output& output);
  void open_mock(const EnvironmentReader& environment);

  bool is_mock_ = true;
  std::string base_url_;
  std::unique_ptr<HttpTransport> transport_;
  std::unique_ptr<JobClient> client_;
  std::filesystem::path mock_folder_;
  JobRecord* mock_record_ = nullptr;
};

// What accelerators there are and what they cost: the file's, else what the service of real mode tells, else what is
// built in, with a warning.
PriceTable find_prices(const std::optional<std::string>& file, JobService& service, const Output& output);

// Where run folders are when no configuration says it: TRAINING_OUTPUT_DIR, or artifacts/training_runs where that is
// not set or names a bucket.
std::filesystem::path local_runs_folder(const EnvironmentReader& environment);

}  // namespace gemma_sft
