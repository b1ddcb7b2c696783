#include "trainer/tunix/submit_job.h"

#include <fmt/format.h>

#include "configs/error.h"
#include "configs/resolved_yaml.h"
#include "data/files/sha256.h"
#include "trainer/run/run_manifest.h"
#include "trainer/tunix/job_spec.h"

namespace gemma_sft {
namespace {

constexpr const char* kRequestName = "job_request.json";  // what was sent, for people

}  // namespace

OpenedRecord open_job_record(const SubmitRequest& request) {
  const bool is_mock = request.mode == "mock";
  const std::string config_sha256 = sha256_hex(to_yaml(request.config));
  if (auto found = find_job_record(request.place.folder); found && !(found->mode == "mock" && !is_mock)) {
    const auto refuse = [&](const std::string& why) {
      throw Error(ErrorKind::kUsage, fmt::format("{}: {}; start another run with --resume never",
                                                 (request.place.folder / kJobRecordName).string(), why));
    };
    if (found->mode != request.mode) refuse("it is a job of the service, and this is mock mode (TUNIX_MODE)");
    if (found->base_url != request.base_url) {
      refuse(fmt::format("its job was submitted to {}, and the address now is {}", found->base_url, request.base_url));
    }
    if (found->config_sha256 != config_sha256) refuse("it was submitted with another configuration");
    return {std::move(*found), Attempt::kRepeated};
  }
  JobRecord record;
  record.run_id = request.place.id;
  record.mode = request.mode;
  record.base_url = request.base_url;
  record.project_id = request.config.tunix.project_id.value_or("");
  // Mock mode is the same in every detail each time.
  record.idempotency_key = is_mock ? "gemma-sft-" + request.place.id : new_idempotency_key(request.place.id);
  record.config_sha256 = config_sha256;
  record.created_at = utc_timestamp();
  return {std::move(record), Attempt::kFirst};
}

Job submit_job(JobClient& client, const SubmitRequest& request, OpenedRecord& opened, FileSystem& files) {
  JobRecord& record = opened.record;
  const std::filesystem::path& folder = request.place.folder;
  DatasetUpload upload;
  if (request.write_rows) upload = request.write_rows();
  if (!record.dataset_sha256.empty() && record.dataset_sha256 != upload.sha256) {
    throw Error(ErrorKind::kUsage, fmt::format("{}: it was begun with other rows; start another run with --resume "
                                               "never",
                                               (folder / kJobRecordName).string()));
  }
  record.dataset_sha256 = upload.sha256;
  write_file_durably(files, folder / "config.yaml", to_yaml(request.config));
  write_job_record(folder, record, files);
  if (request.write_rows && record.dataset_id.empty()) {
    record.dataset_id = client.upload_dataset(upload, record.project_id, record.idempotency_key + "-dataset");
    write_job_record(folder, record, files);
  }
  const JobSpec spec = make_job_spec({.config = request.config,
                                      .run_id = request.place.id,
                                      .output_uri = request.output_uri,
                                      .max_seq_length = request.max_seq_length,
                                      .dataset_id = record.dataset_id,
                                      .submission = record.idempotency_key,
                                      .config_sha256 = record.config_sha256,
                                      .client_version = request.client_version});
  write_file_durably(files, folder / kRequestName, spec.body + "\n");
  const Job job = client.submit(spec, opened.attempt);
  record.job_id = job.id;
  record.last_state = job_state_name(job.state);
  write_job_record(folder, record, files);
  return job;
}

}  // namespace gemma_sft
