#include "trainer/cli/jobs_commands.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "configs/secrets.h"
#include "trainer/cli/jobs_estimate.h"
#include "trainer/cli/jobs_service.h"
#include "trainer/cli/jobs_watch.h"
#include "trainer/run/utf8_json.h"
#include "trainer/tunix/download_job.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::ordered_json;

void print_json(const Output& output, const Json& json) {
  if (!output.json()) return;
  output.print(without_secrets(utf8_json(json)) + "\n");
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json json_of(const Job& job, const JobService& service) {
  Json json = {{"id", job.id},
               {"mode", service.mode()},
               {"state", job_state_name(job.state)},
               {"phase", job.phase},
               {"progress", job.progress},
               {"step", job.step},
               {"total_steps", job.total_steps},
               {"loss", or_null(job.loss)},
               {"cost_usd", or_null(job.cost_usd)},
               {"accelerator", job.accelerator},
               {"region", job.region},
               {"experiment_name", job.experiment_name},
               {"created_at", job.created_at},
               {"finished_at", job.finished_at},
               {"dashboard_url", dashboard_url(job)},
               {"error", nullptr}};
  if (job.problem) {
    json["error"] = {{"code", job.problem->code}, {"message", job.problem->message}, {"hint", job.problem->hint}};
  }
  return json;
}

int show(JobService& service, const std::string& id, const Output& output) {
  const Job job = service.client().status(id);
  print_json(output, json_of(job, service));
  output.print_line(fmt::format("{}: {}{}", job.id, describe_job(job), service.mark()));
  const auto line = [&](const char* name, const std::string& value) {
    if (!value.empty()) output.print_line(fmt::format("  {:<12} {}", name, value));
  };
  line("experiment", job.experiment_name);
  line("accelerator", job.accelerator + (job.region.empty() ? "" : " in " + job.region));
  line("created", job.created_at);
  line("finished", job.finished_at);
  if (job.eta_seconds) line("remaining", fmt::format("{:.0f} s", *job.eta_seconds));
  if (job.problem) line("error", fmt::format("{}: {}", job.problem->code, job.problem->message));
  line("monitor", dashboard_url(job));
  return 0;
}

int list(JobService& service, const JobsArguments& arguments, const EnvironmentReader& environment,
         const Output& output) {
  JobFilter filter;
  filter.project_id = arguments.project_id.value_or(environment.find("TUNIX_PROJECT_ID").value_or(""));
  filter.experiment = arguments.experiment;
  filter.state = arguments.state;
  Json jobs = Json::array();
  for (int64_t left = arguments.limit; left > 0;) {
    filter.limit = std::min<int64_t>(left, 100);
    const JobPage page = service.client().list(filter);
    for (const Job& job : page.jobs) {
      if (left-- <= 0) break;
      jobs.push_back(json_of(job, service));
      output.print_line(fmt::format("{}  {}  {}{}", job.id, describe_job(job), job.experiment_name, service.mark()));
    }
    if (!page.next || page.jobs.empty()) break;
    filter.after = page.next;
  }
  print_json(output, {{"jobs", jobs}});
  if (jobs.empty()) output.note(fmt::format("no jobs{}", service.mark()));
  return 0;
}

// The job as it ended, or the error that its end is.
Job require_completed(const Job& job, const JobService& service) {
  if (job.state == JobState::kCompleted) return job;
  if (!is_terminal(job.state)) {
    throw Error(ErrorKind::kUsage, fmt::format("{}: {}{}: it has not ended, so there is nothing to download yet; "
                                               "gemma-sft jobs watch {} follows it",
                                               job.id, describe_job(job), service.mark(), job.id));
  }
  const Error error = job_error(job);
  throw Error(error.kind(), error.what() + std::string(service.mark()));
}

int watch_and_download(JobService& service, const std::string& id, bool watch,
                       const std::optional<std::string>& output_dir, const Output& output) {
  const Job job = watch ? watch_job(service, id, WatchEvents::kYes, output) : service.client().status(id);
  Json summary = json_of(job, service);
  if (watch && job.state != JobState::kCompleted) {
    print_json(output, summary);
    const Error error = job_error(job);
    const int code = exit_code(error.kind());
    output.complain(error.what() + std::string(service.mark()));
    return code;
  }
  require_completed(job, service);
  if (watch) output.status(fmt::format("Job completed: {}{}", id, service.mark()));
  if (output_dir) {
    if (service.is_mock()) {
      output.warn(fmt::format("{}: mock mode trains nothing: there is no model, and nothing was downloaded{}", id,
                              service.mark()));
    } else {
      const DownloadResult result =
          when_interrupted(output, "stopped while downloading: the same command goes on where it is",
                           [&] { return download_job(service.client(), id, *output_dir, real_file_system()); });
      summary["output_dir"] = result.folder.string();
      summary["files"] = result.artifacts.size();
      summary["bytes"] = result.bytes;
      output.status(fmt::format("{}: {} files, {} bytes, every digest right",
                                result.was_there ? "Model is there already" : "Model downloaded",
                                result.artifacts.size(), result.bytes));
      output.print_line("  " + (result.folder / "final_model").string());
    }
  }
  print_json(output, summary);
  return 0;
}

int cancel(JobService& service, const std::string& id, const Output& output) {
  const Job job = service.client().cancel(id);
  print_json(output, json_of(job, service));
  output.status(fmt::format("{}: {}{}", id, describe_job(job), service.mark()));
  return 0;
}

int auth_test(JobService& service, const Output& output) {
  const KeyInfo info = service.client().auth_test();
  print_json(output, {{"ok", true},
                      {"mode", service.mode()},
                      {"key_prefix", info.prefix},
                      {"expires_at", info.expires_at},
                      {"projects", info.projects}});
  output.status(fmt::format("The key is accepted by {}{}", service.base_url(), service.mark()));
  if (!info.expires_at.empty()) output.print_line("  expires      " + info.expires_at);
  for (const std::string& project : info.projects) output.print_line("  project      " + project);
  return 0;
}

int quota(JobService& service, const JobsArguments& arguments, const EnvironmentReader& environment,
          const Output& output) {
  const auto project = arguments.project_id ? arguments.project_id : environment.find("TUNIX_PROJECT_ID");
  if (!project && !service.is_mock()) {
    throw Error(ErrorKind::kUsage, "quota: --project-id or TUNIX_PROJECT_ID is required");
  }
  const Quota quota = service.client().quota(project.value_or("mock"), arguments.accelerator.value_or(""),
                                             arguments.region.value_or(""));
  print_json(output, {{"mode", service.mode()},
                      {"limit", quota.limit},
                      {"in_use", quota.in_use},
                      {"available", quota.available},
                      {"resets_at", quota.resets_at},
                      {"console_url", quota.console_url}});
  output.print_line(fmt::format("{} of {} available, {} in use{}{}", quota.available, quota.limit, quota.in_use,
                                quota.resets_at.empty() ? "" : ", resets at " + quota.resets_at, service.mark()));
  if (quota.available > 0) return 0;
  throw Error(
      ErrorKind::kQuota,
      fmt::format("no quota is available{}; see {}, wait, or take a smaller accelerator", service.mark(),
                  quota.console_url.empty() ? "https://console.cloud.google.com/iam-admin/quotas" : quota.console_url));
}

}  // namespace

int run_jobs(const JobsArguments& arguments, const Output& output) {
  const EnvironmentReader environment;
  if (arguments.verb == JobsVerb::kEstimate) return run_jobs_estimate(arguments, environment, output);
  if (arguments.verb == JobsVerb::kPreflight) return run_preflight(arguments, environment, output);
  JobService service({.base_url = arguments.base_url, .configured = {}, .job_id = arguments.id}, environment, output);
  switch (arguments.verb) {
    case JobsVerb::kList: return list(service, arguments, environment, output);
    case JobsVerb::kShow: return show(service, *arguments.id, output);
    case JobsVerb::kWatch: return watch_and_download(service, *arguments.id, true, std::nullopt, output);
    case JobsVerb::kCancel: return cancel(service, *arguments.id, output);
    case JobsVerb::kDownload: return watch_and_download(service, *arguments.id, false, arguments.output_dir, output);
    case JobsVerb::kAuthTest: return auth_test(service, output);
    case JobsVerb::kQuota: return quota(service, arguments, environment, output);
    case JobsVerb::kEstimate:
    case JobsVerb::kPreflight: break;
  }
  throw Error(ErrorKind::kInternal, "a command without an answer");
}

int run_eval_generate_job(const EvalGenerateArguments& arguments, const Output& output) {
  const EnvironmentReader environment;
  JobService service({.base_url = {}, .configured = {}, .job_id = arguments.job_id}, environment, output);
  return watch_and_download(service, *arguments.job_id, arguments.watch,
                            arguments.download ? arguments.output_dir : std::nullopt, output);
}

}  // namespace gemma_sft
