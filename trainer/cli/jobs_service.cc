#include "trainer/cli/jobs_service.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <charconv>
#include <random>

#include "configs/error.h"
#include "configs/run_config.h"
#include "trainer/cli/program.h"
#include "trainer/tunix/http_job_client.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
constexpr const char* kDefaultBaseUrl = "https://api.tunix.ai/v1";

// A core dump or another process of this user could read the key out of our memory.
void leave_no_dump() {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
}

void warn_of_readable_key(const std::string& origin, const Output& output) {
  const size_t in = origin.find(" in ");
  struct stat status {};
  if (in == std::string::npos || stat(origin.c_str() + in + 4, &status) != 0) return;
  if ((status.st_mode & 077) != 0) {
    output.warn(fmt::format("{}: other users can read the key in it; chmod 600 {}", origin.substr(in + 4),
                            origin.substr(in + 4)));
  }
}

double retry_seconds_of(const EnvironmentReader& environment, double otherwise) {
  const auto text = environment.find("TUNIX_RETRY_SECONDS");
  if (!text) return otherwise;
  double seconds = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
  if (error != std::errc() || end != text->data() + text->size() || !(seconds >= 0 && seconds <= 86400)) {
    throw Error(ErrorKind::kUsage, fmt::format("{}: expected seconds from 0 to 86400; unset it for {}",
                                               environment.origin("TUNIX_RETRY_SECONDS"), otherwise));
  }
  return seconds;
}

// Where a run's record says that the job was submitted. Throws Error(kIo) where none does and there are records that
// cannot be read: one of them may be the job's, and its key must not go to another service.
std::optional<std::string> find_recorded_url(const std::string& job_id, const fs::path& runs) {
  const JobRecords records = list_job_records(runs);
  std::optional<std::string> recorded;
  for (const FoundJobRecord& found : records.found) {
    if (found.record.job_id == job_id && !found.record.base_url.empty()) recorded = found.record.base_url;
  }
  if (recorded || records.unreadable.empty()) return recorded;
  throw Error(ErrorKind::kIo,
              fmt::format("{}\nno other record says where {} was submitted, and this one may: repair it, or give the "
                          "address with --base-url or TUNIX_BASE_URL",
                          records.unreadable.front(), job_id));
}

}  // namespace

PriceTable find_prices(const std::optional<std::string>& file, JobService& service, const Output& output) {
  if (file) return load_prices(*file);
  if (service.is_mock()) return built_in_prices();
  try {
    PriceTable offered = service.client().accelerators();
    if (!offered.accelerators.empty()) return with_speeds(std::move(offered), built_in_prices());
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kApi) throw;
    output.warn(fmt::format("the accelerators of {} are not known, and those that are built in are taken: {}",
                            service.base_url(), error.what()));
  }
  return built_in_prices();
}

fs::path local_runs_folder(const EnvironmentReader& environment) {
  const auto folder = environment.find("TRAINING_OUTPUT_DIR");
  if (folder && !folder->starts_with("gs://")) return *folder;
  return OutputSection().run_dir;
}

JobService::JobService(const ServiceRequest& request, const EnvironmentReader& environment, const Output& output)
    : is_mock_(tunix_mode(environment) == TunixMode::kMock) {
  const auto from_environment = environment.find("TUNIX_BASE_URL");
  for (const auto& candidate : {request.base_url, from_environment, request.configured}) {
    if (base_url_.empty() && candidate) base_url_ = *candidate;
  }
  if (base_url_.empty() && request.job_id) {
    base_url_ = find_recorded_url(*request.job_id, local_runs_folder(environment)).value_or("");
  }
  if (base_url_.empty()) base_url_ = kDefaultBaseUrl;
  base_url_ = require_base_url(base_url_);
  if (is_mock_) {
    open_mock(environment);
  } else {
    open_real(environment, request.retry_seconds, output);
  }
}

JobService::~JobService() = default;

void JobService::open_real(const EnvironmentReader& environment, double retry_seconds, const Output& output) {
  const auto key = environment.find("TUNIX_API_KEY");
  if (!key) {
    throw Error(ErrorKind::kAuthentication,
                "TUNIX_API_KEY is not set: TUNIX_MODE=real needs the key of the job service, in the environment or in "
                ".env; unset TUNIX_MODE for mock mode");
  }
  leave_no_dump();
  const std::string origin = environment.origin("TUNIX_API_KEY");
  warn_of_readable_key(origin, output);
  CurlOptions transport;
  transport.user_agent = std::string("gemma-sft/") + version();
  transport.ca_file = environment.find("TUNIX_CA_FILE").value_or("");
  if (!transport.ca_file.empty() && !fs::exists(transport.ca_file)) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{}: {}: not found", environment.origin("TUNIX_CA_FILE"), transport.ca_file));
  }
  transport.interrupted = [] { return real_clock().interrupted(); };
  transport_ = make_curl_transport(transport);
  HttpJobClientOptions options;
  options.base_url = base_url_;
  options.key = *key;
  options.key_origin = origin;
  options.retry_seconds = retry_seconds_of(environment, retry_seconds);
  options.seed = std::random_device()();
  client_ = std::make_unique<HttpJobClient>(*transport_, real_clock(), std::move(options));
}

// The jobs of earlier processes are in the records of their runs.
void JobService::open_mock(const EnvironmentReader& environment) {
  const MockScenario scenario = require_mock_scenario(environment.find("TUNIX_MOCK_SCENARIO").value_or("success"));
  std::vector<FoundJobRecord> records = list_job_records(local_runs_folder(environment)).found;
  std::erase_if(records, [](const FoundJobRecord& found) { return !found.record.mock; });
  std::vector<MockJob> jobs;
  for (const FoundJobRecord& found : records) jobs.push_back(*found.record.mock);
  client_ = std::make_unique<MockJobClient>(scenario, std::move(jobs), [this, records](const MockJob& job) {
    if (mock_record_ != nullptr) {
      mock_record_->mock = job;
      write_job_record(mock_folder_, *mock_record_, real_file_system());
      return;
    }
    for (const FoundJobRecord& found : records) {
      if (found.record.mock->id != job.id) continue;
      JobRecord record = found.record;
      record.mock = job;
      write_job_record(found.folder, record, real_file_system());
    }
  });
}

void JobService::set_smaller_accelerators(const std::string& list) {
  if (auto* real = dynamic_cast<HttpJobClient*>(client_.get())) real->set_smaller_accelerators(list);
}

void JobService::set_mock_run(const fs::path& folder, JobRecord& record, std::optional<int64_t> total_steps) {
  if (!is_mock_) return;
  mock_folder_ = folder;
  mock_record_ = &record;
  auto& mock = dynamic_cast<MockJobClient&>(*client_);
  mock.set_total_steps(total_steps.value_or(0));
  if (record.mock) mock.remember(*record.mock);
}

}  // namespace gemma_sft
