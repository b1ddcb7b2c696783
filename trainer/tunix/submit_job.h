// One run becomes one job: what is written to the run folder and what is sent, in an order that survives kill -9 at any
// moment. job.json with the key is on the disk before anything is sent; whoever comes later, with the same command,
// finds the job under that key instead of paying for a second one.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "configs/run_config.h"
#include "data/files/file_system.h"
#include "trainer/run/run_directory.h"
#include "trainer/tunix/job_client.h"
#include "trainer/tunix/job_record.h"

namespace gemma_sft {

struct SubmitRequest {
  const RunConfig& config;
  RunPlace place;                         // the run folder, on this machine
  std::optional<std::string> output_uri;  // gs://...: where the service writes
  std::string mode;                       // "mock" or "real"
  std::string base_url;
  int64_t max_seq_length = 0;
  std::string client_version;
  std::function<DatasetUpload()> write_rows;  // into the run folder; null: rows or model are not here (mock mode)
};

// The record that this run goes on from, or a new one, which is not written yet. A record of mock mode is no obstacle
// to a real run. Throws Error(kUsage) where the record belongs to another configuration, service or mode.
struct OpenedRecord {
  JobRecord record;
  Attempt attempt = Attempt::kFirst;  // kRepeated: it was there
};
OpenedRecord open_job_record(const SubmitRequest& request);

// Sends the rows and submits, or finds the job that an earlier attempt submitted. `opened.record` has no job yet; it is
// brought up to date, here and in the folder. Throws what the client and the file system throw, Error(kUsage) when the
// rows are not those of the record.
Job submit_job(JobClient& client, const SubmitRequest& request, OpenedRecord& opened, FileSystem& files);

}  // namespace gemma_sft
