// A submission that is cut off anywhere, by the network, the service or kill -9, and the same command afterwards: one
// job, and the run folder knows it.
#include "trainer/tunix/submit_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/suite_count.h"
#include "tests/testing/temp_dir.h"
#include "tests/trainer/tunix/scripted_service.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using Kind = ServiceFault::Kind;

const std::string kRows =
    "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n{\"id\":4}\n{\"id\":5}\n{\"id\":6}\n{\"id\":7}\n{\"id\":8}\n";

// One life of the submitting process. What it ends with: a job's id, or "" when something ended it early.
class Submission {
 public:
  Submission() { config_.tunix.project_id = "p"; }

  std::string live(FileSystem& files = real_file_system()) {
    FakeClock clock;
    HttpJobClientOptions options;
    options.base_url = "https://jobs.example.org/v1";
    options.key = "tunix_sk_dev_0123456789";
    options.retry_seconds = 30;
    HttpJobClient client(service, clock, options);
    SubmitRequest request{.config = config_,
                          .place = {.id = "r", .folder = dir / "run_r"},
                          .output_uri = {},
                          .mode = "real",
                          .base_url = options.base_url,
                          .max_seq_length = 128,
                          .client_version = "1",
                          .write_rows = {}};
    request.write_rows = [&] {
      write_file_durably(files, dir / "run_r/dataset.jsonl", kRows);
      return DatasetUpload{.file = dir / "run_r/dataset.jsonl",
                           .bytes = kRows.size(),
                           .sha256 = sha256_hex(kRows),
                           .rows = 8,
                           .dataset_key = "k",
                           .manifest_json = ""};
    };
    try {
      files.make_directories(request.place.folder);
      OpenedRecord opened = open_job_record(request);
      if (!opened.record.job_id.empty()) return opened.record.job_id;
      return submit_job(client, request, opened, files).id;
    } catch (const Error&) {
    } catch (const SimulatedKill&) {
    } catch (const SimulatedCrash&) {
    }
    return "";
  }

  // The same command until it comes through, and once more: one job that both know, made from exactly our rows.
  bool makes_one_job() {
    service.faults.clear();
    service.every_fault.reset();
    const std::string id = live();
    return service.jobs() == 1 && service.job(0).at("id") == id && live() == id && service.jobs() == 1 &&
           find_job_record(dir / "run_r")->job_id == id &&
           service.dataset(service.job(0).at("spec").at("dataset_id")) == kRows;
  }

  TempDir dir{memory_folder()};
  ScriptedService service;

 private:
  RunConfig config_;
};

struct Service {
  bool honours_keys;
  int refusal_status;
};
const std::vector<Service> kServices = {{true, 409}, {false, 409}, {false, 422}};

TEST(SubmitJob, KilledAtAnyRequestThereIsOneJob) {
  SuiteCount count("H5 a submission cut off at every request");
  for (const Service& service : kServices) {
    for (const Kind kind : {Kind::kKilledBefore, Kind::kKilledAfter, Kind::kLostBefore, Kind::kLostAfter,
                            Kind::kStatusAfter, Kind::kGarbageAfter, Kind::kTimeout}) {
      for (size_t at = 0;; ++at) {
        Submission submission;
        submission.service.honours_keys = service.honours_keys;
        submission.service.refusal_status = service.refusal_status;
        submission.service.faults.assign(at, {});
        submission.service.faults.push_back({.kind = kind});
        submission.live();
        const bool came_to_pass = submission.service.faults.empty();
        EXPECT_TRUE(count.add(submission.makes_one_job())) << "request " << at;
        if (!came_to_pass) break;
      }
    }
  }
  EXPECT_GE(count.cases(), 3 * 7 * 5);
}

TEST(SubmitJob, KilledAtAnyFileCallThereIsOneJob) {
  SuiteCount count("H5 a submission killed at every file call");
  for (const Service& service : kServices) {
    for (const double written : {0.0, 0.5}) {
      for (int64_t call = 0;; ++call) {
        Submission submission;
        submission.service.honours_keys = service.honours_keys;
        submission.service.refusal_status = service.refusal_status;
        FailingFileSystem files({.call = call, .kind = FaultKind::kCrash, .written_fraction = written});
        submission.live(files);
        const bool came_to_pass = files.has_failed();
        EXPECT_TRUE(count.add(submission.makes_one_job())) << "file call " << call;
        if (!came_to_pass) {
          EXPECT_GT(call, 25);
          break;
        }
      }
    }
  }
}

TEST(SubmitJob, AFullOrBrokenDiskAtAnyFileCallThereIsOneJob) {
  SuiteCount count("H5 a submission with a disk that fails at every file call");
  for (const FaultKind kind : {FaultKind::kOnce, FaultKind::kFromNowOn}) {
    for (int64_t call = 0;; ++call) {
      Submission submission;
      FailingFileSystem files({.call = call, .kind = kind});
      submission.live(files);
      const bool came_to_pass = files.has_failed();
      EXPECT_TRUE(count.add(submission.makes_one_job())) << "file call " << call;
      if (!came_to_pass) break;
    }
  }
}

// Up to four lives, each with faults at random requests and a death at a random file call or request; services that
// replay a known key and services that refuse it.
TEST(SubmitJob, AThousandRandomScriptsOfSeveralLivesMakeOneJobEach) {
  SuiteCount count("H5 submissions of several lives with random faults");
  std::mt19937_64 random(suite_seed());
  const Kind kinds[] = {Kind::kNone,     Kind::kNotSent,      Kind::kLostBefore,  Kind::kLostAfter,
                        Kind::kTimeout,  Kind::kStatusBefore, Kind::kStatusAfter, Kind::kGarbageAfter,
                        Kind::kTooLarge, Kind::kKilledBefore, Kind::kKilledAfter};
  const int statuses[] = {400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504};
  for (int64_t script = 0; script < case_count(1000, 20'000); ++script) {
    Submission submission;
    const Service& service = kServices[random() % kServices.size()];
    submission.service.honours_keys = service.honours_keys;
    submission.service.refusal_status = service.refusal_status;
    for (size_t life = random() % 4; life > 0; --life) {
      submission.service.faults.clear();
      for (size_t i = random() % 12; i > 0; --i) {
        const bool fails = random() % 2 == 0;
        submission.service.faults.push_back({.kind = fails ? kinds[random() % std::size(kinds)] : Kind::kNone,
                                             .status = statuses[random() % std::size(statuses)]});
      }
      const int64_t call = random() % 3 == 0 ? static_cast<int64_t>(random() % 40) : -1;
      FailingFileSystem files({.call = call, .kind = FaultKind::kCrash, .written_fraction = random() % 2 / 2.0});
      submission.live(files);
    }
    EXPECT_TRUE(count.add(submission.makes_one_job())) << "script " << script << " of seed " << suite_seed();
  }
}

TEST(SubmitJob, ARecordOfAnotherConfigurationServiceModeOrDataIsRefused) {
  Submission submission;
  ASSERT_FALSE(submission.live().empty());
  RunConfig config;
  config.tunix.project_id = "p";
  const SubmitRequest same{.config = config,
                           .place = {.id = "r", .folder = submission.dir / "run_r"},
                           .output_uri = {},
                           .mode = "real",
                           .base_url = "https://jobs.example.org/v1",
                           .max_seq_length = 128,
                           .client_version = "1",
                           .write_rows = {}};
  EXPECT_EQ(open_job_record(same).attempt, Attempt::kRepeated);
  SubmitRequest elsewhere = same;
  elsewhere.base_url = "https://elsewhere.example.org/v1";
  EXPECT_THROW(open_job_record(elsewhere), Error);
  SubmitRequest mock = same;
  mock.mode = "mock";
  EXPECT_THROW(open_job_record(mock), Error);
  config.training.learning_rate = 1e-3;
  EXPECT_THROW(open_job_record(same), Error);
}

}  // namespace
}  // namespace gemma_sft
