#include "trainer/cli/train_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "tests/testing/temp_dir.h"
#include "trainer/checkpoint/checkpoint_format.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;

struct Refusal {
  ErrorKind kind = ErrorKind::kInternal;
  std::string message = "nothing was thrown";
};

Refusal refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return {error.kind(), error.what()};
  }
  return {};
}

class TrainRequestTest : public testing::Test {
 protected:
  TrainArguments arguments(const std::string& yaml) {
    TrainArguments made;
    made.config = dir_.write("c.yaml", yaml).string();
    made.assignments.push_back({.key = "output.run_dir", .value = (dir_ / "runs").string(), .origin = "--output-dir"});
    return made;
  }
  std::string base() const { return "model: {base_model: " + (dir_ / "base").string() + "}\n"; }

  TempDir dir_;
};

TEST_F(TrainRequestTest, ANamedDataFileMustBeThereAndRowsOfAManifestNeedNot) {
  TrainArguments made = arguments(base() + "dataset: {data_path: gone.jsonl}\n");
  Refusal gone = refusal([&] { find_dataset(make_train_request(made).loaded); });
  EXPECT_EQ(gone.kind, ErrorKind::kData);
  EXPECT_THAT(gone.message, HasSubstr("Data file not found: gone.jsonl"));

  made = arguments(base() + "dataset: {manifest_path: gone/manifest.json}\n");
  gone = refusal([&] { find_dataset(make_train_request(made).loaded); });
  EXPECT_EQ(gone.kind, ErrorKind::kData);
  EXPECT_THAT(gone.message, HasSubstr("Manifest not found: gone/manifest.json"));

  dir_.write("rows.jsonl", "");
  made = arguments(base() + "dataset: {data_path: rows.jsonl, validation_path: none.jsonl}\n");
  EXPECT_THAT(refusal([&] { find_dataset(make_train_request(made).loaded); }).message,
              HasSubstr("Data file not found: none.jsonl"));

  for (const char* data : {"{data_path: folder}", "{data_path: rows.jsonl, validation_path: folder}"}) {
    dir_.write("folder/rows.jsonl", "");
    made = arguments(base() + "dataset: " + data + "\n");
    gone = refusal([&] { find_dataset(make_train_request(made).loaded); });
    EXPECT_EQ(gone.kind, ErrorKind::kData);
    EXPECT_THAT(gone.message, HasSubstr("folder: expected a regular file, found a folder"));
  }
}

TEST_F(TrainRequestTest, ATunixSectionMeansTheJobServiceUnlessTheBackendIsNamed) {
  const std::string data = "dataset: {data_path: rows.jsonl}\n";
  TrainArguments made = arguments(base() + data + "tunix: {project_id: p}\n");
  EXPECT_TRUE(goes_to_job_service(made));
  made.backend = Backend::kNative;
  EXPECT_FALSE(goes_to_job_service(made));
  made = arguments(base() + data);
  EXPECT_FALSE(goes_to_job_service(made));
  made.backend = Backend::kTunix;
  EXPECT_TRUE(goes_to_job_service(made));
}

TEST_F(TrainRequestTest, ABucketIsRefusedByNameForARunOnThisMachine) {
  dir_.write("rows.jsonl", "");
  const std::string data = "dataset: {data_path: rows.jsonl}\n";
  TrainArguments made = arguments(base() + data);
  made.assignments.push_back({.key = "output.run_dir", .value = "gs://bucket/runs", .origin = "--output-dir"});
  const TrainRequest request = make_train_request(made);
  const Refusal refused = refusal([&] { require_startable(request, find_dataset(request.loaded)); });
  EXPECT_EQ(refused.kind, ErrorKind::kUsage);
  EXPECT_THAT(refused.message, HasSubstr("gs://bucket/runs"));
}

// A job's folder, with the model that was downloaded into it, can be written to.
TEST_F(TrainRequestTest, APlaceIsWritableWhateverIsInIt) {
  dir_.write("job/final_model/config.json", "{}");
  EXPECT_NO_THROW(require_writable_place(dir_ / "job"));
}

TEST_F(TrainRequestTest, TheModelFolderIsLookedAtBeforeTheEngineIsStarted) {
  dir_.write("rows.jsonl", "");
  const TrainArguments made = arguments(base() + "dataset: {data_path: rows.jsonl}\n");
  const TrainRequest request = make_train_request(made);
  Refusal refused = refusal([&] { require_startable(request, find_dataset(request.loaded)); });
  EXPECT_EQ(refused.kind, ErrorKind::kModel);
  EXPECT_THAT(refused.message, HasSubstr("not found"));
  dir_.write("base/config.json", R"({"model_type": "llama"})");
  refused = refusal([&] { require_startable(request, find_dataset(request.loaded)); });
  EXPECT_EQ(refused.kind, ErrorKind::kModel);
  EXPECT_THAT(refused.message, HasSubstr("llama"));
}

std::string write_checkpoint(const TempDir& dir, int64_t step, bool broken) {
  const std::string folder = "run/" + checkpoint_name(step);
  dir.write(folder + "/state.json", "{}");
  CheckpointManifest manifest;
  manifest.run_id = "r";
  manifest.step = step;
  manifest.files["state.json"] = {.bytes = 2, .sha256 = sha256_hex(broken ? "[]" : "{}")};
  return dir.write(folder + "/manifest.json", to_json(manifest)).parent_path().string();
}

TEST_F(TrainRequestTest, ResumeFromARunFolderTakesItsNewestCheckpointThatVerifies) {
  const std::string good = write_checkpoint(dir_, 9, false);
  write_checkpoint(dir_, 4, false);
  write_checkpoint(dir_, 10, true);
  TrainRequest request;
  request.resume_folder = dir_ / "run";
  choose_resume_checkpoint(request);
  EXPECT_EQ(request.resume_folder->string(), good);

  request.resume_folder = dir_ / "run/checkpoint-10";  // named itself: left to the checks of the resume
  choose_resume_checkpoint(request);
  EXPECT_EQ(request.resume_folder, dir_ / "run/checkpoint-10");

  dir_.write("other/file", "");
  request.resume_folder = dir_ / "other";
  const Refusal refused = refusal([&] { choose_resume_checkpoint(request); });
  EXPECT_EQ(refused.kind, ErrorKind::kCheckpoint);
  EXPECT_THAT(refused.message, HasSubstr("there is no checkpoint in it"));
}

}  // namespace
}  // namespace gemma_sft
