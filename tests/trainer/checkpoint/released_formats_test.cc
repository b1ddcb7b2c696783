// R15: the checkpoints in formats/version-<N>, made when format N was released, load for ever: every tensor, the state,
// and a run that goes on from them. Unknown fields are no obstacle; a newer version is refused by its number.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"
#include "configs/load_config.h"
#include "data/files/sha256.h"
#include "tests/testing/suite_count.h"
#include "tests/testing/temp_dir.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/checkpoint/checkpointer.h"
#include "trainer/checkpoint/state_file.h"
#include "trainer/run_tensors.h"
#include "trainer/train_setup.h"
#include "trainer/training_progress.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

const fs::path kFormats = fs::path(GEMMA_SFT_SOURCE_DIR) / "tests/trainer/checkpoint/formats";

// A copy of one version's fixture that a test may train in.
class Released {
 public:
  explicit Released(int version) {
    at::set_num_threads(1);
    fs::copy(kFormats / ("version-" + std::to_string(version)), dir_ / "fixture", fs::copy_options::recursive);
  }
  fs::path operator/(const std::string& name) const { return dir_ / "fixture" / name; }

  // The run that made the checkpoint ("full" or "lora"), as its configuration says.
  TrainRequest request(const std::string& run) const {
    LoadOptions options;
    options.environment = [](const std::string&) { return std::nullopt; };
    options.dotenv = dir_ / "no-such-file";
    options.assignments = {{"model.base_model", (*this / "base").string(), "--set"},
                           {"dataset.data_path", (*this / "rows.jsonl").string(), "--set"}};
    if (run == "lora") {
      options.assignments.push_back({"lora.rank", "2", "--set"});
      options.assignments.push_back({"lora.dropout", "0.1", "--set"});
    }
    TrainRequest made;
    made.loaded = load_config((*this / "config.yaml").string(), options);
    made.place = {.id = run, .folder = *this / run};
    made.device = "cpu";
    return made;
  }

  // Changes a text of a checkpoint and lets the manifest agree.
  void edit(const std::string& run, const std::string& name, const std::string& from, const std::string& to) {
    const fs::path checkpoint = *this / run / "checkpoint-2";
    CheckpointManifest manifest = *verify_checkpoint(checkpoint).manifest;
    std::string text = read_file(checkpoint / name);
    text.replace(text.find(from), from.size(), to);
    dir_.write(fs::relative(checkpoint / name, dir_.path()).string(), text);
    if (name == kCheckpointManifestName) return;
    manifest.files[name] = {text.size(), sha256_hex(text)};
    dir_.write(fs::relative(checkpoint / kCheckpointManifestName, dir_.path()).string(), to_json(manifest));
  }

 private:
  TempDir dir_;
};

// Every version that this program has ever written.
const std::vector<int> kVersions = {1};

TEST(ReleasedFormats, each_has_its_fixture_and_there_is_one_of_the_version_that_is_written_now) {
  for (const int version : kVersions) EXPECT_TRUE(fs::exists(kFormats / ("version-" + std::to_string(version))));
  EXPECT_EQ(kVersions.back(), kCheckpointVersion);
}

TEST(ReleasedFormats, what_is_loaded_and_saved_again_is_the_same_to_the_byte) {
  SuiteCount count("R15 released formats loaded bit by bit");
  for (const int version : kVersions) {
    const Released released(version);
    for (const std::string run : {"full", "lora"}) {
      const fs::path checkpoint = released / run / "checkpoint-2";
      const CheckpointVerdict verdict = verify_checkpoint(checkpoint, run);
      ASSERT_TRUE(verdict.manifest) << verdict.problem;
      const SavedState saved = read_saved_state(checkpoint);
      EXPECT_EQ(saved.state.step, 2);
      EXPECT_EQ(saved.state.cursor.position, 4);
      EXPECT_EQ(saved.state.epoch, 0.5);
      EXPECT_EQ(saved.origin.total_steps, 4);
      EXPECT_EQ(saved.origin.config.training.seed, 7);
      EXPECT_EQ(saved.origin.config.lora.rank, run == "lora" ? 2 : 0);

      const TrainRequest request = released.request(run);
      RecordingObserver observer;
      const TrainSetup setup = prepare_training(request, observer);
      Gemma model = load_model(setup, request.loaded.config, request.loaded.file);
      Optimizer optimizer(model.trainable_parameters(), optimizer_options(request.loaded.config.training));
      restore_checkpoint(checkpoint, model, optimizer);
      const TempDir again;
      CheckpointFolders folders(again.path(), run, 2, real_file_system());
      Checkpointer(folders, saved.origin, real_file_system()).save(saved.state, run_tensors(model, optimizer));
      const auto files = verify_checkpoint(again / "checkpoint-2").manifest.value().files;
      for (const char* name : {"model.safetensors", "optimizer.safetensors", "random.safetensors"}) {
        EXPECT_TRUE(count.add(files.at(name) == verdict.manifest->files.at(name))) << run << ", " << name;
      }
    }
  }
}

TEST(ReleasedFormats, a_run_goes_on_from_each_also_with_fields_that_nobody_knows) {
  SuiteCount count("R15 released formats continued");
  for (const int version : kVersions) {
    for (const std::string run : {"full", "lora"}) {
      for (const bool unknown_fields : {false, true}) {
        Released released(version);
        if (unknown_fields) {
          released.edit(run, "state.json", "{", "{\"of_a_later_day\": [1, {}],");
          released.edit(run, kCheckpointManifestName, "{", "{\"of_a_later_day\": null,");
        }
        RecordingObserver observer;
        const RunResult result = run_training(released.request(run), real_file_system(), {&observer});
        EXPECT_TRUE(count.add(result.outcome == RunOutcome::kFinished && observer.first_step == 2 && result.steps == 4))
            << run << " continued from " << observer.first_step;
      }
    }
  }
}

TEST(ReleasedFormats, a_newer_version_is_refused_by_its_number) {
  Released released(kCheckpointVersion);
  released.edit("full", kCheckpointManifestName, "\"version\": " + std::to_string(kCheckpointVersion),
                "\"version\": " + std::to_string(kCheckpointVersion + 1));
  try {
    run_training(released.request("full"), real_file_system(), {});
    ADD_FAILURE() << "it was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCheckpoint);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("checkpoint-2"),
                                    HasSubstr("format version " + std::to_string(kCheckpointVersion + 1) +
                                              ", this program reads version " + std::to_string(kCheckpointVersion))));
  }
}

}  // namespace
}  // namespace gemma_sft
