// `train` with the other engine: the same configuration as a job of a training service.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "configs/environment.h"
#include "configs/error.h"
#include "configs/resolved_yaml.h"
#include "configs/secrets.h"
#include "data/files/sha256.h"
#include "trainer/cli/jobs_commands.h"
#include "trainer/cli/jobs_data.h"
#include "trainer/cli/jobs_service.h"
#include "trainer/cli/jobs_watch.h"
#include "trainer/cli/program.h"
#include "trainer/cli/status_lines.h"
#include "trainer/cli/train_request.h"
#include "trainer/run/run_directory.h"
#include "trainer/run/run_manifest.h"
#include "trainer/tunix/download_job.h"
#include "trainer/tunix/job_dataset.h"
#include "trainer/tunix/job_spec.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

bool is_bucket(const std::string& path) { return path.starts_with("gs://"); }

// The run's own folder is on this machine; a gs:// address is where the service writes.
struct Places {
  RunPlace local;
  std::optional<std::string> output_uri;
};

Places find_places(const TrainArguments& arguments, const TrainRequest& request, const EnvironmentReader& environment) {
  Places places;
  const std::string& chosen = request.loaded.config.output.run_dir;
  std::optional<std::string> bucket;
  RunConfig local = request.loaded.config;
  if (is_bucket(chosen)) {
    bucket = chosen;
    local.output.run_dir = local_runs_folder(environment).string();
  } else {  // TRAINING_OUTPUT_DIR may stand before an address in the file, which then is still where the service writes
    LoadOptions options;
    options.assignments = arguments.assignments;
    options.dotenv = "";
    options.environment = [&](const std::string& name) -> std::optional<std::string> {
      return name == "TRAINING_OUTPUT_DIR" ? std::nullopt : environment.find(name);
    };
    const std::string of_file = load_config(arguments.config, options).config.output.run_dir;
    if (is_bucket(of_file)) bucket = of_file;
  }
  if (arguments.output && is_bucket(*arguments.output)) {
    throw Error(ErrorKind::kUsage, fmt::format("--output {}: the run folder is on this machine; an address for the "
                                               "service belongs into output.run_dir or --output-dir",
                                               *arguments.output));
  }
  places.local = resolve_run_place(
      local, {.run_id = arguments.run_id, .exact_folder = arguments.output, .resume = request.resume});
  if (bucket) {
    while (bucket->ends_with('/')) bucket->pop_back();
    places.output_uri = fmt::format("{}/run_{}", *bucket, places.local.id);
  }
  return places;
}

// The record that this run goes on from, or a new one. A record of mock mode is no obstacle to a real run.
JobRecord open_record(const Places& places, const JobService& service, const std::string& config_sha256,
                      const std::string& project) {
  const fs::path& folder = places.local.folder;
  if (auto found = find_job_record(folder); found && !(found->mode == "mock" && !service.is_mock())) {
    const auto refuse = [&](const std::string& why) {
      throw Error(ErrorKind::kUsage, fmt::format("{}: {}; start another run with --resume never",
                                                 (folder / kJobRecordName).string(), why));
    };
    if (found->mode != service.mode()) refuse("it is a job of the service, and this is mock mode (TUNIX_MODE)");
    if (found->base_url != service.base_url()) {
      refuse(
          fmt::format("its job was submitted to {}, and the address now is {}", found->base_url, service.base_url()));
    }
    if (found->config_sha256 != config_sha256) refuse("it was submitted with another configuration");
    return *found;
  }
  JobRecord record;
  record.run_id = places.local.id;
  record.mode = service.mode();
  record.base_url = service.base_url();
  record.project_id = project;
  // Mock mode is the same in every detail each time.
  record.idempotency_key = service.is_mock() ? "gemma-sft-" + places.local.id : new_idempotency_key(places.local.id);
  record.config_sha256 = config_sha256;
  record.created_at = utc_timestamp();
  return record;
}

void require_project(const JobService& service, const RunConfig& config) {
  if (service.is_mock() || config.tunix.project_id) return;
  throw Error(ErrorKind::kUsage,
              "tunix.project_id: required to submit a job; give it in the configuration or in TUNIX_PROJECT_ID");
}

std::string manifest_text(const JobData& data) {
  return data.manifest ? read_file(data.manifest->path, 64 << 20) : std::string();
}

}  // namespace

int run_tunix_train(const TrainArguments& arguments, const Output& output) {
  const EnvironmentReader environment;
  const TrainRequest request = make_train_request(arguments);
  const RunConfig& config = request.loaded.config;
  const Places places = find_places(arguments, request, environment);
  for (const std::string& warning : request.loaded.warnings) output.warn(warning);
  print_config_status(request, output);

  JobService service({.base_url = arguments.base_url, .configured = config.tunix.api_base_url, .job_id = {}},
                     environment, output);
  require_project(service, config);
  output.status(fmt::format("Tunix client initialized ({} mode)", service.mode()));

  const JobData data =
      read_job_data(request.loaded, service.is_mock() ? Missing::kIsAccepted : Missing::kIsAnError, output);
  output.status(fmt::format("Dataset loaded: {} training examples", data.rows.value_or(0)));
  const PriceTable prices = arguments.prices ? load_prices(*arguments.prices) : built_in_prices();
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
  if (config.dataset.validation_path || config.dataset.validation_fraction > 0) {
    output.warn("validation rows are held out and not sent: a job trains without evaluation");
  }

  const fs::path& folder = places.local.folder;
  FileSystem& files = real_file_system();
  const RunLock lock(folder, files);
  const std::string yaml = to_yaml(config);
  JobRecord record = open_record(places, service, sha256_hex(yaml), config.tunix.project_id.value_or(""));
  const bool was_known = find_job_record(folder).has_value() && record.mode == find_job_record(folder)->mode;
  if (record.job_id.empty()) {
    DatasetUpload upload;
    if (data.index != nullptr) {
      upload = write_job_dataset(*data.index, data.tokenizer, config.dataset.parse_control_tokens, folder, files);
      upload.dataset_key = data.manifest ? data.manifest->dataset_key : fs::path(data.index->file).stem().string();
      upload.manifest_json = manifest_text(data);
    }
    if (!record.dataset_sha256.empty() && record.dataset_sha256 != upload.sha256) {
      throw Error(ErrorKind::kUsage,
                  fmt::format("{}: it was begun with other rows; start another run with --resume never",
                              (folder / kJobRecordName).string()));
    }
    record.dataset_sha256 = upload.sha256;
    write_file_durably(files, folder / "config.yaml", yaml);
    write_job_record(folder, record, files);
    service.set_mock_run(folder, record, data.steps);
    if (data.index != nullptr && record.dataset_id.empty()) {
      record.dataset_id =
          service.client().upload_dataset(upload, record.project_id, record.idempotency_key + "-dataset");
      write_job_record(folder, record, files);
    }
    const JobSpec spec = make_job_spec({.config = config,
                                        .run_id = places.local.id,
                                        .output_uri = places.output_uri,
                                        .max_seq_length = data.max_seq_length,
                                        .dataset_id = record.dataset_id,
                                        .submission = record.idempotency_key,
                                        .config_sha256 = record.config_sha256,
                                        .client_version = version()});
    write_file_durably(files, folder / "job_request.json", spec.body + "\n");
    const Job job = service.client().submit(spec, was_known ? Attempt::kRepeated : Attempt::kFirst);
    record.job_id = job.id;
    record.last_state = job_state_name(job.state);
    write_job_record(folder, record, files);
    output.status(fmt::format("Job submitted to Tunix: {}", job.id));
    print_line(output, "🔗 Monitor: " + dashboard_url(job));
  } else {
    service.set_mock_run(folder, record, data.steps);
    output.status(fmt::format("Job submitted to Tunix before: {}", record.job_id));
    print_line(output, "🔗 Monitor: " + dashboard_url({.id = record.job_id}));
  }

  nlohmann::ordered_json summary = {{"command", "train"},
                                    {"mode", service.mode()},
                                    {"job_id", record.job_id},
                                    {"run_id", places.local.id},
                                    {"run_folder", folder.string()}};
  const auto finish = [&](const std::string& state) {
    summary["state"] = state;
    if (output.json()) output.print(without_secrets(summary.dump()) + "\n");
    return 0;
  };
  if (!arguments.wait) {
    output.note(fmt::format("not waited for: gemma-sft jobs watch {}", record.job_id));
    return finish(record.last_state);
  }
  print_line(output, "⏳ Polling for completion...");
  const Job job = watch_job(service, record.job_id, WatchEvents::kNo, output);
  record.last_state = job_state_name(job.state);
  write_job_record(folder, record, files);
  if (job.state != JobState::kCompleted) {
    const Error error = job_error(job);
    throw Error(error.kind(), fmt::format("{}{}\nAnother attempt: the same command with --resume never", error.what(),
                                          service.mark()));
  }
  output.status(fmt::format("Job completed: {}{}", job.id, service.mark()));
  if (service.is_mock()) {
    output.note("mock mode trains nothing: there is no model");
  } else if (arguments.download) {
    const DownloadResult result = download_job(service.client(), job.id, folder / "downloaded", files);
    output.status(fmt::format("Model downloaded: {}", (result.folder / "final_model").string()));
    summary["output_dir"] = result.folder.string();
  }
  return finish(record.last_state);
}

}  // namespace gemma_sft
