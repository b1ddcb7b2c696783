// job.json in the run folder: which job this run is, and under which key it was or will be submitted. Written durably
// before the first POST, so that a process that is killed at any moment leaves what the next one needs to find the job
// instead of paying for a second one. Holds no secret.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/files/file_system.h"
#include "trainer/tunix/mock_job_client.h"

namespace gemma_sft {

inline constexpr const char* kJobRecordName = "job.json";

struct JobRecord {
  std::string run_id;
  std::string mode;  // "mock" or "real"
  std::string base_url;
  std::string project_id;
  std::string idempotency_key;
  std::string config_sha256;   // of the resolved configuration
  std::string dataset_sha256;  // of the rows as they are uploaded; empty in mock mode without rows
  std::string dataset_id;      // of the service; empty: not uploaded yet
  std::string job_id;          // empty: not known to be submitted
  std::string last_state;      // as last seen; empty: never
  std::string created_at;
  std::optional<MockJob> mock;  // mock mode: what the service in this process remembers
  bool operator==(const JobRecord&) const = default;
};

void write_job_record(const std::filesystem::path& run_folder, const JobRecord& record, FileSystem& files);

// nullopt: there is none. Throws Error(kIo) when there is one that cannot be read, or that cannot be known.
std::optional<JobRecord> find_job_record(const std::filesystem::path& run_folder);

struct FoundJobRecord {
  std::filesystem::path folder;
  JobRecord record;
};
struct JobRecords {
  std::vector<FoundJobRecord> found;    // oldest first
  std::vector<std::string> unreadable;  // what is wrong with each of the others
};
// Of every run_* folder in `runs`. Throws Error(kIo) where `runs` cannot be listed.
JobRecords list_job_records(const std::filesystem::path& runs);

// 32 hex digits that no other run has, behind the run's id.
std::string new_idempotency_key(const std::string& run_id);

}  // namespace gemma_sft
