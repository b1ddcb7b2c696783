#include "trainer/tunix/job_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <system_error>
#include <tuple>

#include "configs/error.h"
#include "configs/value_reader.h"
#include "data/files/folder_entry.h"
#include "trainer/run/utf8_json.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr int kFormat = 1;
constexpr uint64_t kMostBytes = 1 << 20;
constexpr size_t kMostTextBytes = 4096;

Json json_of(const MockJob& mock) {
  return {{"id", mock.id},
          {"submission", mock.submission},
          {"project_id", mock.project_id},
          {"experiment_name", mock.experiment_name},
          {"accelerator", mock.accelerator},
          {"region", mock.region},
          {"scenario", mock_scenario_name(mock.scenario)},
          {"total_steps", mock.total_steps},
          {"looks", mock.looks},
          {"cancel_wanted", mock.cancel_wanted}};
}

// What a record says is shown and sent: a text as a setting may hold it. Throws std::invalid_argument.
std::string line_of(const Json& json, const char* name) {
  std::string text = json.at(name);
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (text.size() <= kMostTextBytes && std::none_of(text.begin(), text.end(), is_control)) return text;
  throw std::invalid_argument(
      fmt::format("{}: expected one line of at most {} bytes without control characters, found "
                  "\"{}\"",
                  name, kMostTextBytes, shown_text(text)));
}

MockJob mock_of(const Json& json) {
  return {.id = line_of(json, "id"),
          .submission = line_of(json, "submission"),
          .project_id = line_of(json, "project_id"),
          .experiment_name = line_of(json, "experiment_name"),
          .accelerator = line_of(json, "accelerator"),
          .region = line_of(json, "region"),
          .scenario = require_mock_scenario(json.at("scenario")),
          .total_steps = json.at("total_steps"),
          .looks = json.at("looks"),
          .cancel_wanted = json.at("cancel_wanted")};
}

}  // namespace

void write_job_record(const fs::path& run_folder, const JobRecord& record, FileSystem& files) {
  Json json = {{"format", kFormat},
               {"run_id", record.run_id},
               {"mode", record.mode},
               {"base_url", record.base_url},
               {"project_id", record.project_id},
               {"idempotency_key", record.idempotency_key},
               {"config_sha256", record.config_sha256},
               {"dataset_sha256", record.dataset_sha256},
               {"dataset_id", record.dataset_id},
               {"job_id", record.job_id},
               {"last_state", record.last_state},
               {"created_at", record.created_at}};
  if (record.mock) json["mock"] = json_of(*record.mock);
  write_file_durably(files, run_folder / kJobRecordName, utf8_json(json, 2) + "\n");
}

std::optional<JobRecord> find_job_record(const fs::path& run_folder) {
  const fs::path path = run_folder / kJobRecordName;
  std::error_code error;
  if (!fs::exists(path, error)) {
    if (error) throw file_error("look for it", path, error.value());
    return std::nullopt;
  }
  const std::string remedy = "; it says which job this run is: repair it, or start another run with --resume never";
  try {
    const Json json = Json::parse(read_file(path, kMostBytes));
    if (json.at("format") != kFormat) {
      throw Error(ErrorKind::kIo, fmt::format("{}: written by another version of gemma-sft{}", path.string(), remedy));
    }
    JobRecord record{.run_id = line_of(json, "run_id"),
                     .mode = line_of(json, "mode"),
                     .base_url = line_of(json, "base_url"),
                     .project_id = line_of(json, "project_id"),
                     .idempotency_key = line_of(json, "idempotency_key"),
                     .config_sha256 = line_of(json, "config_sha256"),
                     .dataset_sha256 = line_of(json, "dataset_sha256"),
                     .dataset_id = line_of(json, "dataset_id"),
                     .job_id = line_of(json, "job_id"),
                     .last_state = line_of(json, "last_state"),
                     .created_at = line_of(json, "created_at"),
                     .mock = {}};
    if (json.contains("mock")) record.mock = mock_of(json.at("mock"));
    return record;
  } catch (const Json::exception&) {
    throw Error(ErrorKind::kIo, fmt::format("{}: not a job record{}", path.string(), remedy));
  } catch (const std::invalid_argument& refused) {
    throw Error(ErrorKind::kIo, fmt::format("{}: {}{}", path.string(), refused.what(), remedy));
  }
}

JobRecords list_job_records(const fs::path& runs) {
  JobRecords records;
  for (const fs::path& folder : list_folder(runs)) {
    if (!folder.filename().string().starts_with("run_")) continue;
    try {
      if (auto record = find_job_record(folder)) records.found.push_back({folder, std::move(*record)});
    } catch (const Error& error) {  // another run's trouble may be none of this command's
      records.unreadable.emplace_back(error.what());
    }
  }
  std::sort(records.found.begin(), records.found.end(), [](const FoundJobRecord& a, const FoundJobRecord& b) {
    return std::tie(a.record.created_at, a.folder) < std::tie(b.record.created_at, b.folder);
  });
  std::sort(records.unreadable.begin(), records.unreadable.end());
  return records;
}

std::string new_idempotency_key(const std::string& run_id) {
  std::random_device random;
  std::string key = "gemma-sft-" + run_id.substr(0, 64) + "-";
  for (int i = 0; i < 4; ++i) key += fmt::format("{:08x}", random());
  return key;
}

}  // namespace gemma_sft
