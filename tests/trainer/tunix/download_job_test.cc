#include "trainer/tunix/download_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

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
  int status_after_cut = 0;  // 0: as usual
  std::string tag;           // "": the digest
  std::string last_if_range;
  int incomplete_lists = 0;
  bool has_file = true;

  HttpResponse send(const HttpRequest& request) override {
    if (request.url.ends_with("/artifacts")) {
      return ScriptedService::json(
          200, {{"complete", incomplete_lists-- <= 0},
                {"data", {{{"path", path}, {"kind", "final_model"}, {"size", bytes.size()}, {"sha256", sha256}}}}});
    }
    ++answers;
    if (!has_file) return ScriptedService::json(404, {{"error", {{"code", "not_found"}, {"message", "no such file"}}}});
    if (status_after_cut != 0 && answers > 1) return {status_after_cut, {}, ""};
    size_t from = 0;
    for (const auto& [name, value] : request.headers) {
      if (name == "Range") from = std::stoul(value.substr(6));
      if (name == "If-Range") last_if_range = value;
    }
    HttpResponse head{200, {{"etag", tag.empty() ? "\"" + sha256 + "\"" : tag}}, ""};
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
    return download_job(client, "job_abc123xyz", folder_, files);
  }
  void expect_whole() {
    EXPECT_EQ(read_file(dir_ / "models/m" / service_.path), service_.bytes);
    EXPECT_FALSE(fs::exists(dir_ / "models/m.partial"));
  }
  TempDir dir_;
  fs::path folder_ = dir_ / "models/m";
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

TEST_F(DownloadJobTest, TheFolderMayEndWithASlash) {
  folder_ = dir_ / "models/m/";
  download();
  expect_whole();
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_ / "models/m"), {}), 2);  // the file's folder and the list
  EXPECT_TRUE(download().was_there);
}

TEST_F(DownloadJobTest, AListThatIsNotCompleteIsAskedForAgain) {
  service_.incomplete_lists = 2;
  download();
  expect_whole();
  fs::remove_all(dir_ / "models");
  service_.incomplete_lists = 1'000'000;
  try {
    download();
    ADD_FAILURE() << "a part of the files is no model";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kApi);
    EXPECT_NE(std::string(error.what()).find("not complete yet"), std::string::npos) << error.what();
  }
  EXPECT_FALSE(fs::exists(dir_ / "models/m"));
}

TEST_F(DownloadJobTest, AFileThatIsNotThereIsNotAJobThatIsNotThere) {
  service_.has_file = false;
  try {
    download();
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("no such file"), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).find("does not know the job"), std::string::npos) << error.what();
  }
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

// What somebody put where the download is about to write: a link to a file or a folder elsewhere, a hard link, a pipe.
TEST_F(DownloadJobTest, NothingPlantedAtAnyComponentLeadsElsewhere) {
  const std::string part = "models/m.partial/parts/" + service_.sha256 + ".part";
  for (const std::string& component :
       {std::string("models/m"), std::string("models/m.partial"), std::string("models/m.partial/parts"),
        std::string("models/m.partial/whole"), std::string("models/m.partial/whole/final_model"),
        std::string("models/m.partial/whole/") + service_.path, part, std::string("models/m/final_model"),
        std::string("models/m/") + service_.path, std::string("models/m/artifacts.json")}) {
    for (const char* kind : {"link to a folder", "link to a file", "dangling link", "hard link", "pipe"}) {
      const std::string what = component + ": " + kind;
      fs::remove_all(dir_ / "models");
      fs::remove_all(dir_ / "elsewhere");
      dir_.write("elsewhere/file", "theirs");
      fs::create_directories((dir_ / component).parent_path());
      if (kind == std::string("link to a folder")) {
        fs::create_directory_symlink(dir_ / "elsewhere", dir_ / component);
      } else if (kind == std::string("link to a file")) {
        fs::create_symlink(dir_ / "elsewhere/file", dir_ / component);
      } else if (kind == std::string("dangling link")) {
        fs::create_symlink(dir_ / "elsewhere/new", dir_ / component);
      } else if (kind == std::string("hard link")) {
        fs::create_hard_link(dir_ / "elsewhere/file", dir_ / component);
      } else {
        ASSERT_EQ(mkfifo((dir_ / component).c_str(), 0600), 0);
      }
      try {
        download();
        expect_whole();
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr((dir_ / "models/m").string())) << what;
      }
      EXPECT_EQ(read_file(dir_ / "elsewhere/file"), "theirs") << what;
      EXPECT_EQ(std::distance(fs::directory_iterator(dir_ / "elsewhere"), {}), 1) << what;
    }
  }
}

TEST_F(DownloadJobTest, AFolderThatOthersCouldWriteToIsEmptiedAndClosedToThem) {
  dir_.write("models/m.partial/parts/" + service_.sha256 + ".part", "planted");
  fs::permissions(dir_ / "models/m.partial", fs::perms::all);
  service_.cut_after = 1000;
  service_.status_after_cut = 400;
  EXPECT_THROW(download(), Error);
  EXPECT_EQ(fs::status(dir_ / "models/m.partial").permissions(), fs::perms::owner_all);
  EXPECT_EQ(read_file(dir_ / ("models/m.partial/parts/" + service_.sha256 + ".part")), std::string(1000, 'x'));
}

TEST_F(DownloadJobTest, ATransferCutAtEvery64KibAndCorruptedEverywhereEndsRight) {
  for (size_t cut = 65'536; cut <= service_.bytes.size(); cut += 65'536) {
    service_.cut_after = cut;
    download();
    expect_whole();
    fs::remove_all(dir_ / "models");
  }
}

// A storage that the service sends us to has tags of its own.
TEST_F(DownloadJobTest, ATagThatIsNoDigestIsTakenAsItIsForTheRest) {
  service_.tag = "\"CJ+9x7\"";
  service_.cut_after = 65'536;
  download();
  expect_whole();
  EXPECT_EQ(service_.answers, 4);
  EXPECT_EQ(service_.last_if_range, service_.tag);
  fs::remove_all(dir_ / "models");
  service_.tag = "\"" + std::string(64, 'a') + "\"";
  EXPECT_THROW(download(), Error);  // a digest, and another one
}

}  // namespace
}  // namespace gemma_sft
