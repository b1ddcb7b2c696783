#include "trainer/tunix/job_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class JobRecordTest : public ::testing::Test {
 protected:
  JobRecord write(const std::string& run, const std::string& created_at) {
    const JobRecord record{.run_id = run,
                           .mode = "real",
                           .base_url = "https://jobs.example.org/v1",
                           .project_id = "p",
                           .idempotency_key = "k",
                           .config_sha256 = "c",
                           .dataset_sha256 = "d",
                           .dataset_id = "ds",
                           .job_id = "job_" + run,
                           .last_state = "running",
                           .created_at = created_at,
                           .mock = {}};
    fs::create_directories(runs() / ("run_" + run));
    write_job_record(runs() / ("run_" + run), record, real_file_system());
    return record;
  }
  std::string refusal(const std::string& run) {
    try {
      find_job_record(runs() / run);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
      return error.what();
    }
    return "";
  }
  fs::path runs() const { return dir_ / "runs"; }

  TempDir dir_;
};

TEST_F(JobRecordTest, IsReadAsItWasWritten) {
  const JobRecord record = write("a", "2026-01-01T00:00:00Z");
  EXPECT_EQ(find_job_record(runs() / "run_a"), record);
  EXPECT_FALSE(find_job_record(runs() / "run_b"));
}

TEST_F(JobRecordTest, WhatCannotBeReadIsNotAbsent) {
  dir_.write("runs/run_a/job.json", "{\"format\": 1");
  EXPECT_THAT(refusal("run_a"), HasSubstr("job.json: not a job record"));
  fs::create_directory(runs() / "run_b");
  fs::create_symlink("job.json", runs() / "run_b/job.json");
  EXPECT_THAT(refusal("run_b"), HasSubstr("job.json: cannot look for it"));
}

TEST_F(JobRecordTest, AreListedOldestFirstAndThoseThatCannotBeReadAreNamed) {
  EXPECT_THAT(list_job_records(runs()).found, IsEmpty());
  write("new", "2026-01-02T00:00:00Z");
  write("old", "2026-01-01T00:00:00Z");
  fs::create_directory(runs() / "run_without");
  dir_.write("runs/elsewhere/job.json", "{");
  dir_.write("runs/run_cut/job.json", "{");
  const JobRecords records = list_job_records(runs());
  ASSERT_EQ(records.found.size(), 2u);
  EXPECT_EQ(records.found[0].record.job_id, "job_old");
  EXPECT_EQ(records.found[1].record.job_id, "job_new");
  EXPECT_EQ(records.found[1].folder, runs() / "run_new");
  EXPECT_THAT(records.unreadable, ElementsAre(HasSubstr((runs() / "run_cut/job.json").string())));
}

TEST_F(JobRecordTest, AFolderThatCannotBeListedIsAnError) {
  dir_.write("runs", "");
  EXPECT_THROW(list_job_records(runs()), Error);
}

TEST_F(JobRecordTest, TextThatSteersATerminalOrHasNoEndIsRefused) {
  write("a", "2026-01-01T00:00:00Z");
  const std::string good = read_file(runs() / "run_a/job.json");
  const auto refusal_of = [&](const std::string& name, const std::string& value) {
    Json json = Json::parse(good);
    json[name] = value;
    dir_.write("runs/run_a/job.json", json.dump());
    return refusal("run_a");
  };
  EXPECT_THAT(refusal_of("base_url", "https://a\x1b[2J\nb"), HasSubstr("base_url: expected one line"));
  EXPECT_THAT(refusal_of("base_url", "https://a\x1b[2J\nb"), HasSubstr("found \"https://a\\u001b[2J\\nb\""));
  EXPECT_THAT(refusal_of("job_id", "j\x7f"), HasSubstr("job_id: expected one line"));
  EXPECT_LT(refusal_of("job_id", std::string(900'000, 'j')).size(), 1000u);
  Json json = Json::parse(good);
  json["mock"] = {{"id", "m\x1b"}};
  dir_.write("runs/run_a/job.json", json.dump());
  EXPECT_THAT(refusal("run_a"), HasSubstr("id: expected one line"));
}

}  // namespace
}  // namespace gemma_sft
