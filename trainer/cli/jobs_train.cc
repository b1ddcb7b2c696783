// `train` with the other engine: the same configuration as a job of a training service.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "configs/environment.h"
#include "configs/error.h"
#include "configs/secrets.h"
#include "data/files/file_system.h"
#include "data/records/manifest.h"
#include "trainer/cli/jobs_commands.h"
#include "trainer/cli/jobs_data.h"
#include "trainer/cli/jobs_places.h"
#include "trainer/cli/jobs_service.h"
#include "trainer/cli/jobs_watch.h"
#include "trainer/cli/program.h"
#include "trainer/cli/status_lines.h"
#include "trainer/cli/train_request.h"
#include "trainer/run/run_directory.h"
#include "trainer/run/utf8_json.h"
#include "trainer/tunix/download_job.h"
#include "trainer/tunix/job_dataset.h"
#include "trainer/tunix/job_settings.h"
#include "trainer/tunix/submit_job.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

void require_project(const JobService& service, const RunConfig& config) {
  if (service.is_mock() || config.tunix.project_id) return;
  throw Error(ErrorKind::kUsage,
              "tunix.project_id: required to submit a job; give it in the configuration or in TUNIX_PROJECT_ID");
}

// Says what the job will take, and refuses one that may cost too much.
void check_estimate(const RunConfig& config, const JobData& data, const std::optional<std::string>& price_file,
                    JobService& service, const Output& output) {
  const PriceTable prices = find_prices(price_file, service, output);
  const JobEstimate estimate = estimate_of(config, data, prices);
  output.note("estimate:\n" + estimate_text(estimate));
  if (const MemoryFit* fit = estimate.find_memory(estimate.accelerator); fit != nullptr && !fit->fits) {
    output.warn(
        fmt::format("{} does not hold this run: set training.precision: bf16, lora.rank or "
                    "training.activation_checkpointing: true, lower training.batch_size, or take a larger one",
                    estimate.accelerator));
  }
  require_affordable(estimate, config);
  service.set_smaller_accelerators(smaller_that_fit(estimate, prices, estimate.accelerator));
}

// The rows as the service gets them, in the run folder.
DatasetUpload write_rows(const RunConfig& config, const JobData& data, const fs::path& run_folder, FileSystem& files) {
  DatasetUpload rows =
      write_job_dataset(*data.index, data.tokenizer, config.dataset.parse_control_tokens, run_folder, files);
  rows.dataset_key = data.manifest ? data.manifest->dataset_key : fs::path(data.index->file).stem().string();
  if (data.manifest) rows.manifest_json = read_file(data.manifest->path, kMaxManifestBytes);
  return rows;
}

// Once: what an earlier attempt submitted is not submitted again. The record knows the job afterwards.
void submit_once(JobService& service, const SubmitRequest& submission, OpenedRecord& opened, FileSystem& files,
                 const Output& output) {
  if (!opened.record.job_id.empty()) {
    output.status(fmt::format("Job submitted to Tunix before: {}", opened.record.job_id));
    output.print_line("🔗 Monitor: " + dashboard_url({.id = opened.record.job_id}));
    return;
  }
  const Job job =
      when_interrupted(output, "stopped while submitting: the same command looks for the job before it submits again",
                       [&] { return submit_job(service.client(), submission, opened, files); });
  output.status(fmt::format("Job submitted to Tunix: {}", job.id));
  output.print_line("🔗 Monitor: " + dashboard_url(job));
}

// To its end, which the record then knows. Throws what an end other than completion means.
void wait_for_job(JobService& service, const fs::path& run_folder, JobRecord& record, FileSystem& files,
                  const Output& output) {
  output.print_line("⏳ Polling for completion...");
  const Job job = watch_job(service, record.job_id, WatchEvents::kNo, output);
  record.last_state = job_state_name(job.state);
  write_job_record(run_folder, record, files);
  if (job.state != JobState::kCompleted) {
    const Error error = job_error(job);
    throw Error(error.kind(), fmt::format("{}{}\nAnother attempt: the same command with --resume never", error.what(),
                                          service.mark()));
  }
  output.status(fmt::format("Job completed: {}{}", job.id, service.mark()));
}

// Gives the folder that the files of the job are in.
fs::path download_model(JobService& service, const std::string& job_id, const fs::path& run_folder, FileSystem& files,
                        const Output& output) {
  const DownloadResult result = when_interrupted(
      output,
      fmt::format("stopped while downloading: the same command, or gemma-sft jobs download {}, goes on", job_id),
      [&] { return download_job(service.client(), job_id, run_folder / "downloaded", files); });
  output.status(fmt::format("Model downloaded: {}", (result.folder / "final_model").string()));
  return result.folder;
}

}  // namespace

int run_tunix_train(const TrainArguments& arguments, const Output& output) {
  const EnvironmentReader environment;
  const TrainRequest request = make_train_request(arguments);
  const RunConfig& config = request.loaded.config;
  const JobPlaces places = find_job_places(arguments, request, environment);
  require_job_settings(config);
  for (const std::string& warning : request.loaded.warnings) output.warn(warning);
  for (const std::string& warning : job_settings_warnings(config)) output.warn(warning);
  print_config_status(request, output);

  JobService service({.base_url = arguments.base_url, .configured = config.tunix.api_base_url, .job_id = {}},
                     environment, output);
  require_project(service, config);
  output.status(fmt::format("Tunix client initialized ({} mode)", service.mode()));

  const JobData data =
      read_job_data(request.loaded, service.is_mock() ? Missing::kIsAccepted : Missing::kIsAnError, output);
  output.status(fmt::format("Dataset loaded: {} training examples", data.rows.value_or(0)));
  check_estimate(config, data, arguments.prices, service, output);

  const fs::path& folder = places.local.folder;
  FileSystem& files = real_file_system();
  const RunLock lock(folder, files);
  SubmitRequest submission{.config = config,
                           .place = places.local,
                           .output_uri = places.output_uri,
                           .mode = service.mode(),
                           .base_url = service.base_url(),
                           .max_seq_length = data.max_seq_length,
                           .client_version = version(),
                           .write_rows = {}};
  if (data.index != nullptr) submission.write_rows = [&] { return write_rows(config, data, folder, files); };
  OpenedRecord opened = open_job_record(submission);
  JobRecord& record = opened.record;
  service.set_mock_run(folder, record, data.steps);
  submit_once(service, submission, opened, files, output);

  nlohmann::ordered_json summary = {{"command", "train"},
                                    {"mode", service.mode()},
                                    {"job_id", record.job_id},
                                    {"run_id", places.local.id},
                                    {"run_folder", folder.string()}};
  if (arguments.wait) {
    wait_for_job(service, folder, record, files, output);
    if (service.is_mock()) {
      output.note("mock mode trains nothing: there is no model");
    } else if (arguments.download) {
      summary["output_dir"] = download_model(service, record.job_id, folder, files, output).string();
    }
  } else {
    output.note(fmt::format("not waited for: gemma-sft jobs watch {}", record.job_id));
  }
  summary["state"] = record.last_state;
  if (output.json()) output.print(without_secrets(utf8_json(summary)) + "\n");
  return 0;
}

}  // namespace gemma_sft
