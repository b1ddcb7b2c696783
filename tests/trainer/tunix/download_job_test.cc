#include "trainer/tunix/download_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/temp_dir.h"
#include "tests/trainer/tunix/scripted_service.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

// Serves one file over the HTTP client, and misbehaves as told.
class FileService : public HttpTransport {
 public:
  std::string path = "final_model/model.safetensors";
  std::string bytes = std::string(200'000, 'x') + "end";
  std::string sha256 = sha256_hex(bytes);
  size_t cut_after = SIZE_MAX;  // bytes of one answer
  int corrupt_answers = 0;
  enum class Range { kHonoured, kIgnored, kWrong, kRefused } range = Range::kHonoured;
  int answers = 0;

  HttpResponse send(const HttpRequest& request) override {
    if (request.url.ends_with("/artifacts")) {
      return ScriptedService::json(
          200, {{"complete", true},
                {"data", {{{"path", path}, {"kind", "final_model"}, {"size", bytes.size()}, {"sha256", sha256}}}}});
    }
    ++answers;
    size_t from = 0;
    for (const auto& [name, value] : request.headers) {
      if (name == "Range") from = std::stoul(value.substr(6));
    }
    HttpResponse head{200, {{"etag", "\"" + sha256 + "\""}}, ""};
    if (from > 0 && range == Range::kRefused) return {416, {}, ""};
    if (from > 0 && range != Range::kIgnored) {
      head.status = 206;
      const size_t said = range == Range::kWrong ? from + 1 : from;
      head.headers.emplace_back("content-range", "bytes " + std::to_string(said) + "-" +
                                                     std::to_string(bytes.size() - 1) + "/" +
                                                     std::to_string(bytes.size()));
    } else {
      from = 0;
    }
    if (!request.sink->begin(head)) return head;
    std::string rest = bytes.substr(from);
    if (corrupt_answers > 0 && corrupt_answers-- > 0) rest.back() ^= 1;
    const bool cut = rest.size() > cut_after;
    request.sink->append(rest.substr(0, cut_after));
    if (cut) {
      if (range != Range::kHonoured) cut_after = SIZE_MAX;
      throw TransportFailure{TransportFailure::Kind::kLost, "cut"};
    }
    return head;
  }
};

class DownloadJobTest : public ::testing::Test {
 protected:
  DownloadResult download(FileSystem& files = real_file_system()) {
    HttpJobClientOptions options;
    options.base_url = "https://jobs.example.org/v1";
    options.key = "tunix_sk_dev_0123456789";
    HttpJobClient client(service_, clock_, options);
    return download_job(client, "job_abc123xyz", dir_ / "models/m", files);
  }
  void expect_whole() {
    EXPECT_EQ(read_file(dir_ / "models/m" / service_.path), service_.bytes);
    EXPECT_FALSE(fs::exists(dir_ / "models/m.partial"));
  }
  TempDir dir_;
  FileService service_;
  FakeClock clock_;
};

TEST_F(DownloadJobTest, ResumesWhereATransferWasCut) {
  service_.cut_after = 65'536;
  download();
  expect_whole();
  EXPECT_EQ(service_.answers, 4);
  EXPECT_TRUE(download().was_there);
}

TEST_F(DownloadJobTest, StartsAgainWhereTheRangeIsIgnoredWrongOrRefused) {
  for (const auto range : {FileService::Range::kIgnored, FileService::Range::kWrong, FileService::Range::kRefused}) {
    service_.range = range;
    service_.cut_after = 1000;
    download();
    expect_whole();
    fs::remove_all(dir_ / "models");
  }
}

TEST_F(DownloadJobTest, AWrongDigestIsFetchedOnceMoreAndThenAnError) {
  service_.corrupt_answers = 1;
  download();
  expect_whole();
  fs::remove_all(dir_ / "models");
  service_.corrupt_answers = 2;
  EXPECT_THROW(download(), Error);
  EXPECT_FALSE(fs::exists(dir_ / "models/m"));
}

TEST_F(DownloadJobTest, AFaultAtAnyFileCallLeavesNothingUnderTheNameAndTheNextAttemptSucceeds) {
  for (int64_t call = 0;; ++call) {
    FailingFileSystem files({.call = call, .kind = FaultKind::kCrash});
    bool crashed = false;
    try {
      download(files);
    } catch (const SimulatedCrash&) {
      crashed = true;
    }
    if (fs::exists(dir_ / "models/m" / service_.path)) {
      EXPECT_EQ(read_file(dir_ / "models/m" / service_.path), service_.bytes) << call;
    }
    download();
    EXPECT_EQ(read_file(dir_ / "models/m" / service_.path), service_.bytes) << call;
    fs::remove_all(dir_ / "models");
    if (!crashed) {
      EXPECT_GT(call, 10);
      break;
    }
  }
}

TEST_F(DownloadJobTest, NamesThatLeadElsewhereAreRefused) {
  for (const char* path : {"../foo", "./../foo", "foo/../bar", "foo/bar/..", "/etc/x", "C:x", "a\\b", "a//b", "a\nb",
                           "", "artifacts.json"}) {
    EXPECT_NE(artifact_path_problem(path), "") << path;
  }
  EXPECT_NE(artifact_path_problem(std::string(300, 'a')), "");
  for (const char* path : {"foo..bar", ".foo/.bar", "final_model/model-00001-of-00004.safetensors"}) {
    EXPECT_EQ(artifact_path_problem(path), "") << path;
  }
  service_.path = "../../stolen";
  EXPECT_THROW(download(), Error);
  EXPECT_THAT(dir_.list(), testing::IsEmpty());
}

TEST_F(DownloadJobTest, APlantedLinkIsNotFollowed) {
  fs::create_directories(dir_ / "models");
  fs::create_directories(dir_ / "elsewhere");
  fs::create_directory_symlink(dir_ / "elsewhere", dir_ / "models/m.partial");
  EXPECT_THROW(download(), Error);
  EXPECT_TRUE(fs::is_empty(dir_ / "elsewhere"));
}

}  // namespace
}  // namespace gemma_sft
