#include <string>

#include "trainer/cli/command_parser.h"
#include "trainer/cli/parse_commands.h"

namespace gemma_sft {
namespace {

void add_base_url_option(CommandParser& parser) {
  parser.text("--base-url", "URL",
              "address of the job service (default: TUNIX_BASE_URL, then https://api.tunix.ai/v1)");
}

std::string job_id_of(const CommandParser& parser) {
  const std::string id = parser.get("ID");
  if (!is_job_id(id)) parser.fail("ID: expected the id of a job, such as job_abc123xyz");
  return id;
}

CommandLine parse_one_job(const std::string& program, const std::string& command, JobsVerb verb, const Words& rest) {
  return run_parser(
      program, command, rest,
      [](CommandParser& parser) {
        parser.required_positional("ID", "id of the job");
        add_base_url_option(parser);
      },
      [&](const CommandParser& parser) {
        JobsArguments jobs;
        jobs.verb = verb;
        jobs.id = job_id_of(parser);
        jobs.base_url = parser.find("--base-url");
        return jobs;
      });
}

CommandLine parse_configured(const std::string& program, const std::string& command, JobsVerb verb, const Words& rest) {
  return run_parser(
      program, command, rest,
      [](CommandParser& parser) {
        parser.required_text("--config", "FILE", "the configuration (YAML); required");
        add_value_options(parser);
        parser.text("--prices", "FILE", "a price table in the form of configs/accelerators.json");
        add_base_url_option(parser);
      },
      [&](const CommandParser& parser) {
        JobsArguments jobs;
        jobs.verb = verb;
        jobs.config = parser.get("--config");
        jobs.assignments = assignments_of(parser);
        jobs.prices = parser.find("--prices");
        jobs.base_url = parser.find("--base-url");
        return jobs;
      });
}

}  // namespace

CommandLine parse_jobs_show(const std::string& program, const Words& rest) {
  return parse_one_job(program, "jobs show", JobsVerb::kShow, rest);
}

CommandLine parse_jobs_watch(const std::string& program, const Words& rest) {
  return parse_one_job(program, "jobs watch", JobsVerb::kWatch, rest);
}

CommandLine parse_jobs_cancel(const std::string& program, const Words& rest) {
  return parse_one_job(program, "jobs cancel", JobsVerb::kCancel, rest);
}

CommandLine parse_jobs_download(const std::string& program, const Words& rest) {
  return run_parser(
      program, "jobs download", rest,
      [](CommandParser& parser) {
        parser.required_positional("ID", "id of the job");
        parser.required_text("--output-dir", "DIR", "a new folder; required");
        add_base_url_option(parser);
      },
      [](const CommandParser& parser) {
        JobsArguments jobs;
        jobs.verb = JobsVerb::kDownload;
        jobs.id = job_id_of(parser);
        jobs.output_dir = parser.get("--output-dir");
        jobs.base_url = parser.find("--base-url");
        return jobs;
      });
}

CommandLine parse_jobs_list(const std::string& program, const Words& rest) {
  return run_parser(
      program, "jobs list", rest,
      [](CommandParser& parser) {
        parser.text("--state", "STATE", "only jobs in this state");
        parser.text("--experiment", "NAME", "only jobs of this experiment");
        parser.text("--project-id", "ID", "project (default: TUNIX_PROJECT_ID)");
        parser.text("--limit", "N", "at most N jobs (default: 20)");
        add_base_url_option(parser);
      },
      [](const CommandParser& parser) {
        JobsArguments jobs;
        jobs.verb = JobsVerb::kList;
        if (const auto state = parser.find("--state")) {
          jobs.state = find_job_state(*state);
          if (!jobs.state) parser.fail_choice("--state", *state, job_state_names());
        }
        jobs.experiment = parser.find("--experiment");
        jobs.project_id = parser.find("--project-id");
        jobs.limit = parser.find_number<int64_t>("--limit", 1, 100'000).value_or(jobs.limit);
        jobs.base_url = parser.find("--base-url");
        return jobs;
      });
}

CommandLine parse_jobs_estimate(const std::string& program, const Words& rest) {
  return parse_configured(program, "jobs estimate", JobsVerb::kEstimate, rest);
}

CommandLine parse_preflight(const std::string& program, const Words& rest) {
  return parse_configured(program, "preflight", JobsVerb::kPreflight, rest);
}

CommandLine parse_auth_test(const std::string& program, const Words& rest) {
  return run_parser(
      program, "auth test", rest, [](CommandParser& parser) { add_base_url_option(parser); },
      [](const CommandParser& parser) {
        JobsArguments jobs;
        jobs.verb = JobsVerb::kAuthTest;
        jobs.base_url = parser.find("--base-url");
        return jobs;
      });
}

CommandLine parse_quota(const std::string& program, const Words& rest) {
  return run_parser(
      program, "quota", rest,
      [](CommandParser& parser) {
        parser.text("--accelerator", "NAME", "only of this kind, such as tpu-v3-8");
        parser.text("--region", "NAME", "only in this region");
        parser.text("--project-id", "ID", "project (default: TUNIX_PROJECT_ID)");
        add_base_url_option(parser);
      },
      [](const CommandParser& parser) {
        JobsArguments jobs;
        jobs.verb = JobsVerb::kQuota;
        jobs.accelerator = parser.find("--accelerator");
        jobs.region = parser.find("--region");
        jobs.project_id = parser.find("--project-id");
        jobs.base_url = parser.find("--base-url");
        return jobs;
      });
}

}  // namespace gemma_sft
