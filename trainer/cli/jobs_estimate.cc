#include "trainer/cli/jobs_estimate.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "configs/secrets.h"
#include "trainer/cli/jobs_data.h"
#include "trainer/cli/jobs_service.h"
#include "trainer/cli/program.h"
#include "trainer/run/utf8_json.h"
#include "trainer/tunix/job_settings.h"
#include "trainer/tunix/job_spec.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::ordered_json;

// `ask` prints and records what the service says; a service that cannot be reached is a warning.
template <typename Ask>
void where_reachable(const JobService& service, const Output& output, const Ask& ask) {
  try {
    ask();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kApi) throw;
    output.warn(fmt::format("{} is not asked: {}", service.base_url(), error.what()));
  }
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

std::string hours_and_cost(const ServiceEstimate& estimate) {
  if (!estimate.hours_low || !estimate.hours_high || !estimate.usd_low || !estimate.usd_high) {
    return "hours and cost cannot be told before the rows are tokenised";
  }
  return fmt::format("{:.1f} to {:.1f} hours, ${:.2f} to ${:.2f}", *estimate.hours_low, *estimate.hours_high,
                     *estimate.usd_low, *estimate.usd_high);
}

void print_fact(const Output& output, const char* name, const std::string& value) {
  output.print_line(fmt::format("  {:<12} {}", name, value));
}

}  // namespace

int run_jobs_estimate(const JobsArguments& arguments, const EnvironmentReader& environment, const Output& output) {
  LoadOptions options;
  options.assignments = arguments.assignments;
  const LoadedConfig loaded = load_config(*arguments.config, options);
  const RunConfig& config = loaded.config;
  require_job_settings(config);
  for (const std::string& warning : loaded.warnings) output.warn(warning);
  for (const std::string& warning : job_settings_warnings(config)) output.warn(warning);
  JobService service({.base_url = arguments.base_url,
                      .configured = config.tunix.api_base_url,
                      .job_id = {},
                      .retry_seconds = kBriefly},
                     environment, output);
  const JobData data = read_job_data(loaded, Missing::kIsAccepted, output);
  const PriceTable prices = find_prices(arguments.prices, service, output);
  const JobEstimate made = estimate_of(config, data, prices);
  Json json = Json::parse(estimate_json(made));
  output.print_line(fmt::format("Estimate of {} (prices of {}: {})", loaded.file, prices.as_of, prices.source));
  if (!output.json()) output.print(estimate_text(made));
  if (!service.is_mock()) {
    where_reachable(service, output, [&] {
      const JobSpec spec = make_job_spec({.config = config,
                                          .run_id = default_run_id(config),
                                          .output_uri = {},
                                          .max_seq_length = data.max_seq_length,
                                          .dataset_id = "",
                                          .submission = "",
                                          .config_sha256 = "",
                                          .client_version = version(),
                                          .totals = totals_of(data)});
      const ServiceEstimate theirs = service.client().estimate_cost(spec);
      json["service"] = {{"steps", or_null(theirs.steps)},
                         {"tokens", or_null(theirs.tokens)},
                         {"hours", {{"low", or_null(theirs.hours_low)}, {"high", or_null(theirs.hours_high)}}},
                         {"usd", {{"low", or_null(theirs.usd_low)}, {"high", or_null(theirs.usd_high)}}}};
      print_fact(output, "service", fmt::format("{}, says {}", hours_and_cost(theirs), service.base_url()));
    });
    where_reachable(service, output, [&] {
      if (!config.tunix.project_id) return;
      const Quota quota = service.client().quota(*config.tunix.project_id, config.model.accelerator.value_or(""),
                                                 config.model.region.value_or(""));
      json["quota"] = {{"limit", quota.limit}, {"in_use", quota.in_use}, {"available", quota.available}};
      print_fact(output, "quota", fmt::format("{} of {} available", quota.available, quota.limit));
    });
  }
  if (output.json()) {
    output.print(without_secrets(utf8_json(json)) + "\n");
  }
  require_affordable(made, config);
  return 0;
}

}  // namespace gemma_sft
