#include "trainer/run_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "configs/error.h"
#include "data/files/safetensors.h"
#include "data/files/sha256.h"
#include "model/weights.h"
#include "tests/testing/failing_file_system.h"
#include "tests/trainer/send_signal.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/run_generation.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class RunExportTest : public ::testing::Test {
 protected:
  RunExportTest() { install_stop_signals(); }
  void train(const std::vector<std::string>& assignments) {
    run_training(tiny_.request(assignments), real_file_system(), {});
  }
  ExportResult run(const fs::path& input, const std::string& output, ExportedForm form = ExportedForm::kModel) {
    return run_export({.input = input, .form = form, .output = tiny_.files() / output}, real_file_system());
  }
  std::string sha256(const fs::path& path) { return sha256_file(tiny_.files() / path.string()); }
  std::vector<int64_t> greedy(const fs::path& model) {
    GenerationRequest asked;
    asked.model = model.string();
    asked.prompt = "What is 3 + 10?";
    asked.max_new_tokens = 8;
    asked.device = "cpu";
    std::vector<int64_t> ids;
    run_generation(asked, [&](const GeneratedRow& row) { ids = row.output_ids; });
    return ids;
  }

  TinyRun tiny_;
};

TEST_F(RunExportTest, a_run_a_checkpoint_and_a_final_model_give_the_same_model) {
  train({"training.max_steps=4"});
  run(tiny_.run_folder(), "from-run");
  run(tiny_.run_folder() / "checkpoint-4", "from-checkpoint");
  run(tiny_.run_folder() / "final_model", "from-model");
  const std::string wanted = sha256("run/final_model/model.safetensors");
  for (const char* name : {"from-run", "from-checkpoint", "from-model"}) {
    EXPECT_EQ(sha256(fs::path(name) / "model.safetensors"), wanted) << name;
    EXPECT_EQ(sha256(fs::path(name) / "tokenizer.model"), sha256("base/tokenizer.model")) << name;
    EXPECT_EQ(sha256(fs::path(name) / "config.json"), sha256("run/final_model/config.json")) << name;
  }
}

TEST_F(RunExportTest, a_run_without_a_final_model_gives_its_newest_good_checkpoint) {
  train({"training.max_steps=4"});
  fs::remove_all(tiny_.run_folder() / "final_model");
  EXPECT_EQ(run(tiny_.run_folder(), "newest").source, tiny_.run_folder() / "checkpoint-4");
  tiny_.files().write("run/checkpoint-4/state.json", "{}");
  EXPECT_EQ(run(tiny_.run_folder(), "older").source, tiny_.run_folder() / "checkpoint-2");
}

TEST_F(RunExportTest, a_merged_adapter_answers_like_the_adapter_on_its_base) {
  train({"lora.rank=4", "lora.alpha=64", "training.max_steps=12"});
  const fs::path adapter = tiny_.run_folder() / "final_model";
  run(adapter, "merged");
  run(tiny_.run_folder() / "checkpoint-12", "merged-from-checkpoint");
  EXPECT_EQ(greedy(tiny_.files() / "merged"), greedy(adapter));
  EXPECT_NE(greedy(adapter), greedy(tiny_.base_model()));
  EXPECT_EQ(sha256("merged/model.safetensors"), sha256("merged-from-checkpoint/model.safetensors"));
}

TEST_F(RunExportTest, an_adapter_can_be_taken_from_a_checkpoint) {
  train({"lora.rank=2", "training.max_steps=4"});
  run(tiny_.run_folder() / "checkpoint-4", "adapter", ExportedForm::kAdapter);
  EXPECT_EQ(sha256("adapter/adapter_model.safetensors"), sha256("run/final_model/adapter_model.safetensors"));
  EXPECT_EQ(sha256("adapter/adapter_config.json"), sha256("run/final_model/adapter_config.json"));
}

TEST_F(RunExportTest, the_output_may_end_with_a_slash) {
  run(tiny_.base_model(), "out/");
  EXPECT_EQ(sha256("out/model.safetensors"), sha256("base/model.safetensors"));
  EXPECT_THAT(tiny_.files().list(), ::testing::Each(::testing::Not(HasSubstr("new-"))));
  EXPECT_THROW(run(tiny_.base_model(), "out/"), Error);
}

TEST_F(RunExportTest, the_dtype_is_the_one_asked_for) {
  run_export({.input = tiny_.base_model(), .dtype = ModelDtype::kBf16, .output = tiny_.files() / "bf16"},
             real_file_system());
  EXPECT_EQ(files_dtype(tiny_.files() / "bf16"), ModelDtype::kBf16);
}

TEST_F(RunExportTest, what_cannot_be_exported_is_refused_with_the_reason) {
  const auto message = [&](const fs::path& input, const std::string& output, ExportedForm form) {
    try {
      run(input, output, form);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message(tiny_.base_model(), "a", ExportedForm::kAdapter), HasSubstr("is a whole model"));
  EXPECT_THAT(message(tiny_.base_model(), "base", ExportedForm::kModel), HasSubstr("exists already"));
  EXPECT_THAT(message(tiny_.files() / "absent", "b", ExportedForm::kModel), HasSubstr("not found"));
  EXPECT_THAT(message(tiny_.files() / "tokenizer", "c", ExportedForm::kModel), HasSubstr("neither a run folder"));
  EXPECT_FALSE(fs::exists(tiny_.files() / "a"));
}

// Puts the four bytes of `number` into the last weight of a safetensors file.
void end_with(const fs::path& file, float number) {
  std::string bytes = read_file(file);
  std::memcpy(bytes.data() + bytes.size() - sizeof(number), &number, sizeof(number));
  std::ofstream(file, std::ios::binary) << bytes;
}

TEST_F(RunExportTest, weights_that_are_not_finite_are_not_exported) {
  train({"lora.rank=2", "training.max_steps=1"});
  for (const float number : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    end_with(tiny_.run_folder() / "final_model/adapter_model.safetensors", number);
    end_with(tiny_.base_model() / "model.safetensors", number);
    for (const auto& [input, form] : {std::pair{tiny_.base_model(), ExportedForm::kModel},
                                      std::pair{tiny_.run_folder() / "final_model", ExportedForm::kAdapter}}) {
      try {
        run(input, "out", form);
        ADD_FAILURE() << "exported " << input;
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kNonFinite);
        EXPECT_THAT(error.what(), HasSubstr("weight: holds NaN or an infinite number"));
      }
      EXPECT_FALSE(fs::exists(tiny_.files() / "out"));
    }
    EXPECT_THROW(greedy(tiny_.base_model()), Error);
  }
}

TEST_F(RunExportTest, a_stop_signal_leaves_no_folder_behind) {
  send_stop_signal(SIGTERM);
  EXPECT_THROW(run(tiny_.base_model(), "out"), StopRequested);
  EXPECT_FALSE(fs::exists(tiny_.files() / "out"));
}

TEST_F(RunExportTest, a_failing_disk_leaves_no_folder_behind) {
  int failures = 0;
  for (int64_t call = 0;; ++call, ++failures) {
    FailingFileSystem failing({.call = call, .kind = FaultKind::kOnce, .error_number = 28});
    try {
      run_export({.input = tiny_.base_model(), .output = tiny_.files() / "out"}, failing);
      if (!failing.has_failed()) break;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
    }
    // The rename may have happened before a later call failed; otherwise nothing is there.
    if (fs::exists(tiny_.files() / "out")) {
      EXPECT_EQ(sha256("out/model.safetensors"), sha256("base/model.safetensors"));
      fs::remove_all(tiny_.files() / "out");
    }
  }
  EXPECT_GT(failures, 10);
}

}  // namespace
}  // namespace gemma_sft
