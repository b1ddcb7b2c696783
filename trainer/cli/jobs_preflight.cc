// The seven boxes of the production guide's list, each looked at although another one fails.
#include <fmt/format.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "configs/secrets.h"
#include "trainer/cli/jobs_data.h"
#include "trainer/cli/jobs_estimate.h"
#include "trainer/cli/jobs_places.h"
#include "trainer/cli/jobs_service.h"
#include "trainer/run/utf8_json.h"
#include "trainer/tunix/job_settings.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::ordered_json;

// A check that only the user can tick, or that cannot be made from here. Does not fail.
struct Open {
  std::string why;
};

class Checks {
 public:
  explicit Checks(const Output& output) : output_(output) {}

  // `look` gives what is right; throws Open, or Error where it is wrong.
  void add(const char* name, const std::function<std::string()>& look) {
    try {
      tell("passed", "✅", name, look());
    } catch (const Open& open) {
      tell("open", "⚠️", name, open.why);
    } catch (const Error& error) {
      if (exit_code_ == 0) exit_code_ = exit_code(error.kind());
      tell("failed", "❌", name, error.what());
    }
  }
  int finish() const {
    if (output_.json()) {
      const Json json = {{"command", "preflight"}, {"passed", exit_code_ == 0}, {"checks", checks_}};
      output_.print(without_secrets(utf8_json(json)) + "\n");
    }
    return exit_code_;
  }

 private:
  void tell(const char* state, const char* symbol, const char* name, const std::string& detail) {
    checks_.push_back({{"check", name}, {"state", state}, {"detail", detail}});
    output_.print_line(fmt::format("{} {}: {}", symbol, name, without_secrets(detail)));
  }

  const Output& output_;
  Json checks_ = Json::array();
  int exit_code_ = 0;
};

std::string count_of_manifest(const LoadedConfig& loaded) {
  const DatasetPlaces dataset = find_dataset(loaded);
  if (!dataset.manifest) throw Open{"no manifest: the rows are named by dataset.data_path"};
  DatasetSection all = loaded.config.dataset;
  all.max_samples.reset();
  all.on_bad_record = OnBadRecord::kSkip;
  const int64_t rows = count_rows(require_rows(dataset), all);
  if (rows == dataset.manifest->trace_count) return fmt::format("{} traces, and as many rows", rows);
  throw Error(ErrorKind::kData,
              fmt::format("{}: trace_count is {}, and {} has {} rows that can be read", dataset.manifest->path.string(),
                          dataset.manifest->trace_count, dataset.rows.found->string(), rows));
}

}  // namespace

int run_preflight(const JobsArguments& arguments, const EnvironmentReader& environment, const Output& output) {
  TrainArguments train;
  train.config = *arguments.config;
  train.assignments = arguments.assignments;
  const TrainRequest request = make_train_request(train);
  const LoadedConfig& loaded = request.loaded;
  const RunConfig& config = loaded.config;
  Checks checks(output);

  checks.add("dataset built and exported", [&] {
    const auto rows = require_rows(find_dataset(loaded));
    return fmt::format("{}, {} rows", rows.string(), count_rows(rows, config.dataset));
  });
  checks.add("manifest has the expected trace count", [&] { return count_of_manifest(loaded); });
  checks.add("configuration passes the dry-run", [&] {
    find_dataset(loaded);
    require_job_settings(config);
    const size_t warnings = loaded.warnings.size() + job_settings_warnings(config).size();
    return fmt::format("{}{}", loaded.file, warnings == 0 ? "" : fmt::format(", with {} warnings", warnings));
  });

  // One service for the rest. Without a key there is none, and the checks say so.
  std::optional<JobService> service;
  const auto open = [&]() -> JobService& {
    if (!service) {
      service.emplace(ServiceRequest{.base_url = arguments.base_url,
                                     .configured = config.tunix.api_base_url,
                                     .job_id = {},
                                     .retry_seconds = kBriefly},
                      environment, output);
    }
    return *service;
  };
  checks.add("API key is valid", [&] {
    open().client().auth_test();
    return fmt::format("accepted by {}{}", open().base_url(), open().mark());
  });
  checks.add("quota is available", [&] {
    if (!config.tunix.project_id && !open().is_mock()) {
      throw Error(ErrorKind::kUsage, "tunix.project_id or TUNIX_PROJECT_ID is required");
    }
    const Quota quota = open().client().quota(config.tunix.project_id.value_or("mock"),
                                              config.model.accelerator.value_or(""), config.model.region.value_or(""));
    const std::string free = fmt::format("{} of {} {} available{}", quota.available, quota.limit,
                                         config.model.accelerator.value_or("accelerators"), open().mark());
    if (quota.available > 0) return free;
    throw Error(ErrorKind::kQuota, fmt::format("{}; see {}", free, quota.console_url));
  });
  checks.add("output place is writable", [&] {
    const JobPlaces places = find_job_places(train, request, environment);
    require_writable_place(places.local.folder);
    if (!places.output_uri) return places.local.folder.string();
    throw Open{fmt::format("{} is; {} is written to by the service, which checks it when the job begins",
                           places.local.folder.string(), *places.output_uri)};
  });
  checks.add("cost is approved", [&] {
    const JobData data = read_job_data(loaded, Missing::kIsAccepted, output);
    const PriceTable prices = find_prices(arguments.prices, open(), output);
    const JobEstimate estimate = estimate_of(config, data, prices);
    require_affordable(estimate, config);
    if (!estimate.usd) throw Open{"it cannot be estimated; gemma-sft jobs estimate says what is missing"};
    const std::string cost =
        fmt::format("${:.2f} to ${:.2f} at ${:.2f} an hour of {} (prices of {})", estimate.usd->low, estimate.usd->high,
                    estimate.usd_per_hour, estimate.accelerator, estimate.prices_as_of);
    if (config.tunix.max_cost_usd) return fmt::format("{}, within tunix.max_cost_usd", cost);
    throw Open{cost + "; approve it by setting tunix.max_cost_usd"};
  });
  return checks.finish();
}

}  // namespace gemma_sft
