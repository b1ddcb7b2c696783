#include "trainer/run_training.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/safetensors.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/hooked_file_system.h"
#include "tests/trainer/send_signal.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class RunTrainingTest : public ::testing::Test {
 protected:
  RunResult train_on(const TrainRequest& request) { return run_training(request, real_file_system(), {&observer_}); }
  RunResult train(const std::vector<std::string>& assignments, const std::string& run = "run") {
    return train_on(tiny_.request(assignments, run));
  }
  ErrorKind kind_of_failure(const TrainRequest& request, std::string& message) {
    try {
      train_on(request);
    } catch (const Error& error) {
      message = error.what();
      return error.kind();
    }
    ADD_FAILURE() << "no error";
    return ErrorKind::kInternal;
  }
  std::vector<std::string> names_in(const fs::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  std::string status() {
    return json::parse(read_file(tiny_.run_folder() / "run_manifest.json"))["metadata"]["status"].get<std::string>();
  }

  TinyRun tiny_;
  RecordingObserver observer_;
};

TEST_F(RunTrainingTest, leaves_what_the_documentation_says) {
  const RunResult result = train({});
  EXPECT_EQ(result.outcome, RunOutcome::kFinished);
  EXPECT_EQ(result.steps, 18);  // 11 rows, 2 a batch: 6 steps; 3 epochs
  EXPECT_EQ(result.final_model, tiny_.run_folder() / "final_model");
  EXPECT_THAT(names_in(tiny_.run_folder()),
              ElementsAre("checkpoint-16", "checkpoint-18", "completed.json", "config.yaml", "data_report.json",
                          "final_model", "metrics.jsonl", "run.lock", "run_manifest.json", "samples.jsonl"));
  EXPECT_THAT(names_in(tiny_.run_folder() / "checkpoint-18"),
              ElementsAre("config.yaml", "manifest.json", "model.safetensors", "optimizer.safetensors",
                          "random.safetensors", "state.json"));
  EXPECT_THAT(
      names_in(tiny_.run_folder() / "final_model"),
      ElementsAre("SHA256SUMS", "config.json", "generation_config.json", "model.safetensors", "tokenizer.model"));
  EXPECT_EQ(observer_.first_step, 0);
  EXPECT_EQ(observer_.total_steps, 18);
  EXPECT_EQ(observer_.finished, 1);
  EXPECT_EQ(observer_.checkpoints.size(), 9u);
}

// With it a run is left alone, so that nothing may be missing then, nor half written.
TEST_F(RunTrainingTest, completed_json_is_the_last_file_that_is_written) {
  std::vector<std::string> created;
  HookedFileSystem files([&](const fs::path& path) { created.push_back(path.filename().string()); });
  run_training(tiny_.request({"training.max_steps=2"}), files, {});
  ASSERT_FALSE(created.empty());
  EXPECT_THAT(created.back(), HasSubstr("completed.json"));
  EXPECT_THAT(read_file(tiny_.run_folder() / "run_manifest.json"), HasSubstr("finished"));
}

TEST_F(RunTrainingTest, a_finished_run_in_another_dtype_than_asked_for_says_so) {
  train({"training.max_steps=2"});
  observer_.warnings.clear();
  EXPECT_EQ(train({"training.max_steps=2", "output.model_dtype=bf16"}).outcome, RunOutcome::kAlreadyFinished);
  EXPECT_THAT(observer_.warnings, Contains(HasSubstr("is in fp32, and output.model_dtype is bf16 now")));
}

TEST_F(RunTrainingTest, a_base_with_tokenizer_json_alone_trains_alike_and_keeps_its_files) {
  train({"training.max_steps=4"}, "with-model");
  fs::remove(tiny_.base_model() / "tokenizer.model");
  fs::copy_file(fs::path(GEMMA_SFT_SOURCE_DIR) / "tests/data/fixtures/tiny_tokenizer.json",
                tiny_.base_model() / "tokenizer.json");
  train({"training.max_steps=4"}, "with-json");
  const fs::path result = tiny_.run_folder("with-json") / "final_model";
  EXPECT_THAT(names_in(result), ElementsAre("SHA256SUMS", "config.json", "generation_config.json", "model.safetensors",
                                            "tokenizer.json"));
  EXPECT_EQ(read_file(result / "tokenizer.json"), read_file(tiny_.base_model() / "tokenizer.json"));
  EXPECT_EQ(read_file(result / "model.safetensors"),
            read_file(tiny_.run_folder("with-model") / "final_model/model.safetensors"));
}

TEST_F(RunTrainingTest, activation_checkpointing_by_memory_says_what_it_decided_and_changes_no_number) {
  train({"training.max_steps=4"}, "kept");
  observer_.notes.clear();
  train({"training.max_steps=4", "training.activation_checkpointing=auto"}, "auto");
  EXPECT_THAT(observer_.notes, Contains(HasSubstr("activation checkpointing: auto: 0 of 2 blocks")));
  EXPECT_EQ(lasting_metrics(tiny_.run_folder("auto")), lasting_metrics(tiny_.run_folder("kept")));
}

TEST_F(RunTrainingTest, the_rows_of_metrics_hold_what_each_step_did) {
  train({});
  ASSERT_EQ(observer_.steps.size(), 18u);
  for (size_t i = 0; i < 18; ++i) {
    const StepRecord& step = observer_.steps[i];
    EXPECT_EQ(step.step, static_cast<int64_t>(i + 1));
    EXPECT_NEAR(step.epoch, static_cast<double>(i / 6) + std::min(1.0, static_cast<double>(i % 6 + 1) * 2 / 11), 1e-12);
    EXPECT_GT(step.tokens, step.target_tokens);
    EXPECT_GT(step.target_tokens, 0);
    EXPECT_GT(step.grad_norm, 0);
    EXPECT_GT(step.peak_memory_bytes, 1 << 20);
    EXPECT_EQ(step.device, "cpu");
  }
  EXPECT_EQ(observer_.steps[0].learning_rate, 0.0);
  EXPECT_EQ(observer_.steps[1].learning_rate, 0.005);
  EXPECT_EQ(observer_.steps[2].learning_rate, 0.01);
  EXPECT_LT(observer_.steps[17].loss, 0.7 * observer_.steps[0].loss);
  EXPECT_EQ(lasting_metrics(tiny_.run_folder()).size(), 18u);
}

TEST_F(RunTrainingTest, the_first_loss_of_random_weights_is_that_of_a_uniform_guess) {
  train({"training.max_steps=1"});
  EXPECT_NEAR(observer_.steps[0].loss, std::log(512.0), 0.1);
}

TEST_F(RunTrainingTest, the_manifest_describes_the_run_and_survives_a_restart) {
  train({"training.max_steps=4"});
  const fs::path path = tiny_.run_folder() / "run_manifest.json";
  const json first = json::parse(read_file(path));
  EXPECT_EQ(first["run_id"], "run");
  EXPECT_EQ(first["recipe"], "trace_sft_v1");
  EXPECT_EQ(first["seed"], 7);
  EXPECT_EQ(first["dataset_path"], tiny_.data().string());
  EXPECT_EQ(first["metadata"]["status"], "finished");
  train({"training.max_steps=6"});
  EXPECT_EQ(json::parse(read_file(path))["created_at"], first["created_at"]);
}

TEST_F(RunTrainingTest, a_finished_run_is_reported_and_left_alone) {
  train({});
  const auto before = digests_of_results(tiny_.run_folder());
  const auto metrics = read_file(tiny_.run_folder() / "metrics.jsonl");
  RecordingObserver second;
  const RunResult result = run_training(tiny_.request(), real_file_system(), {&second});
  EXPECT_EQ(result.outcome, RunOutcome::kAlreadyFinished);
  EXPECT_EQ(result.steps, 18);
  EXPECT_EQ(result.final_loss, observer_.steps.back().loss);
  EXPECT_THAT(second.steps, IsEmpty());
  EXPECT_EQ(digests_of_results(tiny_.run_folder()), before);
  EXPECT_EQ(read_file(tiny_.run_folder() / "metrics.jsonl"), metrics);
}

TEST_F(RunTrainingTest, a_final_model_that_was_damaged_is_exported_again_from_the_last_checkpoint) {
  train({});
  const auto before = digests_of_results(tiny_.run_folder());
  fs::remove(tiny_.run_folder() / "final_model/model.safetensors");
  const RunResult result = train({});
  EXPECT_EQ(result.outcome, RunOutcome::kFinished);
  EXPECT_EQ(observer_.steps.size(), 18u);  // those of the first run only
  EXPECT_EQ(digests_of_results(tiny_.run_folder()), before);
}

TEST_F(RunTrainingTest, a_larger_max_steps_continues_a_finished_run) {
  train({"training.max_steps=4"});
  const RunResult result = train({"training.max_steps=7"});
  EXPECT_EQ(result.outcome, RunOutcome::kFinished);
  EXPECT_EQ(result.steps, 7);
  EXPECT_EQ(observer_.first_step, 4);
  EXPECT_EQ(lasting_metrics(tiny_.run_folder()).size(), 7u);
}

TEST_F(RunTrainingTest, lora_leaves_a_peft_folder_and_small_checkpoints) {
  train({"lora.rank=2", "training.max_steps=4"});
  EXPECT_THAT(names_in(tiny_.run_folder() / "final_model"),
              ElementsAre("SHA256SUMS", "adapter_config.json", "adapter_model.safetensors"));
  const SafetensorsFile saved(tiny_.run_folder() / "checkpoint-4/model.safetensors");
  EXPECT_EQ(saved.tensors().size(), 2u * 7u * 2u);  // A and B of seven layers in two blocks
  for (const TensorInfo& tensor : saved.tensors()) EXPECT_THAT(tensor.name, HasSubstr("lora_"));
}

TEST_F(RunTrainingTest, an_adapter_is_continued_with_its_own_scale_or_not_at_all) {
  train({"lora.rank=2", "lora.alpha=8", "lora.rslora=true", "training.max_steps=2"}, "first");
  const std::string from = "lora.init_from=" + (tiny_.run_folder("first") / "final_model").string();
  for (const char* other : {"lora.rslora=false", "lora.target_modules=[q_proj]"}) {
    try {
      train({"lora.rank=2", "lora.alpha=8", "lora.rslora=true", from, other}, "other");
      ADD_FAILURE() << other;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_THAT(error.what(), HasSubstr("{rank: 2, alpha: 8, rslora: true, target_modules: [down_proj, gate_proj"));
    }
  }
  train(
      {"lora.rank=2", "lora.alpha=8", "lora.rslora=true", from, "training.max_steps=1", "training.learning_rate=1e-9"},
      "second");
  // Nothing was learnt: the matrices are those of the first run.
  const auto b_of = [&](const std::string& run) {
    const SafetensorsFile file(tiny_.run_folder(run) / "final_model/adapter_model.safetensors");
    const TensorInfo* info = file.find("base_model.model.model.layers.1.mlp.up_proj.lora_B.weight");
    std::vector<float> values(info->bytes() / sizeof(float));
    file.read(*info, values.data());
    return values;
  };
  const std::vector<float> first = b_of("first"), second = b_of("second");
  EXPECT_NE(first.front(), 0.0f);
  for (size_t i = 0; i < first.size(); ++i) EXPECT_NEAR(second[i], first[i], 1e-8);
}

TEST_F(RunTrainingTest, the_final_model_has_the_dtype_asked_for) {
  train({"training.max_steps=1", "output.model_dtype=bf16"});
  const SafetensorsFile file(tiny_.run_folder() / "final_model/model.safetensors");
  for (const TensorInfo& tensor : file.tensors()) EXPECT_EQ(tensor.dtype, TensorDtype::kBF16);
}

TEST_F(RunTrainingTest, evaluates_once_an_epoch_and_names_the_best) {
  train({"dataset.validation_path=" + tiny_.data().string()});
  ASSERT_EQ(observer_.evaluations.size(), 3u);
  EXPECT_EQ(observer_.evaluations[0].step, 6);
  EXPECT_EQ(observer_.evaluations[2].step, 18);
  EXPECT_TRUE(observer_.evaluations[0].best);
  EXPECT_LT(observer_.evaluations[2].eval_loss, observer_.evaluations[0].eval_loss);
  EXPECT_EQ(lasting_metrics(tiny_.run_folder()).size(), 21u);
}

TEST_F(RunTrainingTest, the_evaluation_loss_does_not_depend_on_the_batch_size) {
  std::vector<double> losses;
  for (const char* size : {"1", "3", "11"}) {
    RecordingObserver observer;
    run_training(tiny_.request({"dataset.validation_path=" + tiny_.data().string(), "training.max_steps=1",
                                "training.warmup_steps=5", std::string("training.batch_size=") + size},
                               std::string("run") + size),
                 real_file_system(), {&observer});
    losses.push_back(observer.evaluations.at(0).eval_loss);
  }
  EXPECT_NEAR(losses[0], losses[1], 1e-6);
  EXPECT_NEAR(losses[0], losses[2], 1e-6);
}

TEST_F(RunTrainingTest, validation_rows_are_not_trained_on) {
  train({"dataset.validation_fraction=0.4"});
  ASSERT_FALSE(observer_.evaluations.empty());
  const json report = json::parse(read_file(tiny_.run_folder() / "data_report.json"));
  EXPECT_EQ(report["training"]["training_rows"].get<int>() + report["training"]["validation_rows"].get<int>(), 11);
  EXPECT_EQ(observer_.evaluations[0].eval_tokens, report["training"]["validation_target_tokens"]);
}

TEST_F(RunTrainingTest, rows_of_a_validation_file_are_told_about_as_training_rows_are) {
  const fs::path file = tiny_.files().write("validation.jsonl", R"({"prompt": "<start_of_turn>", "response": "y"})"
                                                                "\nnonsense\n");
  train({"dataset.validation_path=" + file.string(), "training.max_steps=1", "dataset.on_bad_record=skip"});
  EXPECT_THAT(observer_.warnings, Contains(HasSubstr("validation.jsonl: 1 rows skipped (the first: ")));
  EXPECT_THAT(observer_.warnings, Contains(HasSubstr("validation.jsonl: 1 rows spell a control token")));
  const json report = json::parse(read_file(tiny_.run_folder() / "data_report.json"))["validation"];
  EXPECT_EQ(report["training_rows"], 0);
  EXPECT_EQ(report["validation_rows"], 1);
  EXPECT_EQ(report["validation_target_tokens"], observer_.evaluations.at(0).eval_tokens);
}

TEST_F(RunTrainingTest, fields_of_rows_that_are_not_read_are_told) {
  const fs::path file = tiny_.files().write("more.jsonl", R"({"prompt": "a", "response": "b", "system": "c"})"
                                                          "\n");
  train({"dataset.data_path=" + file.string(), "training.max_steps=1"});
  EXPECT_THAT(observer_.warnings,
              Contains(HasSubstr("more.jsonl: fields that dataset.format: training_example does not read, so that "
                                 "nothing in them is trained on: system (1 rows)")));
  const json report = json::parse(read_file(tiny_.run_folder() / "data_report.json"))["training"];
  EXPECT_EQ(report["unread_fields"], json({{"system", 1}}));
}

TEST_F(RunTrainingTest, an_evaluation_that_cannot_be_or_says_nothing_is_not_passed_over) {
  train({"dataset.validation_path=" + tiny_.data().string(), "training.max_steps=1"}, "same");
  EXPECT_THAT(observer_.warnings, Contains(HasSubstr("the file holds the rows that are trained on")));
  train({"dataset.validation_fraction=1e-9", "training.max_steps=1"}, "none");
  EXPECT_THAT(observer_.warnings,
              Contains("dataset.validation_fraction: 1e-09 leaves none of the 11 rows to validate on, so that there is "
                       "no evaluation; raise it"));
  std::string message;
  EXPECT_EQ(kind_of_failure(tiny_.request({"dataset.validation_fraction=1e-9", "evaluation.keep_best=true"}, "best"),
                            message),
            ErrorKind::kUsage);
  EXPECT_THAT(message, HasSubstr("leaves none of the 11 rows to validate on, and evaluation.keep_best needs some"));
}

TEST_F(RunTrainingTest, early_stopping_counts_evaluations_without_improvement) {
  // With a learning rate that breaks the model the first evaluation stays the best.
  const std::vector<std::string> assignments = {"dataset.validation_path=" + tiny_.data().string(),
                                                "training.learning_rate=1",
                                                "training.warmup_steps=0",
                                                "training.max_steps=50",
                                                "evaluation.every=1",
                                                "evaluation.early_stopping_patience=3",
                                                "output.checkpoint_every=0"};
  const RunResult result = train(assignments);
  EXPECT_EQ(result.outcome, RunOutcome::kEarlyStopped);
  EXPECT_LT(result.steps, 50);
  const auto& evaluations = observer_.evaluations;
  const auto best = std::min_element(evaluations.begin(), evaluations.end(),
                                     [](const auto& a, const auto& b) { return a.eval_loss < b.eval_loss; });
  EXPECT_EQ(best->step + 3, result.steps);
  EXPECT_TRUE(fs::exists(tiny_.run_folder() / ("checkpoint-" + std::to_string(result.steps))));
  EXPECT_EQ(train(assignments).outcome, RunOutcome::kAlreadyFinished);
}

TEST_F(RunTrainingTest, the_best_checkpoint_is_kept_and_becomes_the_final_model) {
  // Answers that the training rows lead away from: the loss on them falls first and rises later.
  std::string rows;
  for (int i = 0; i < 4; ++i)
    rows += R"({"prompt": "What is this?", "response": "Zebra ZEBRA [{(~|"})"
            "\n";
  tiny_.files().write("validation.jsonl", rows);
  const RunResult result = train({"dataset.validation_path=" + (tiny_.files() / "validation.jsonl").string(),
                                  "training.max_steps=30", "evaluation.every=2", "evaluation.keep_best=true",
                                  "output.checkpoint_every=0", "output.keep_checkpoints=1"});
  const auto& evaluations = observer_.evaluations;
  const auto best = std::min_element(evaluations.begin(), evaluations.end(),
                                     [](const auto& a, const auto& b) { return a.eval_loss < b.eval_loss; });
  ASSERT_LT(best->step, result.steps);
  const fs::path checkpoint = tiny_.run_folder() / ("checkpoint-" + std::to_string(best->step));
  ASSERT_TRUE(fs::exists(checkpoint));
  const SafetensorsFile saved(checkpoint / "model.safetensors");
  const SafetensorsFile exported(tiny_.run_folder() / "final_model/model.safetensors");
  for (const TensorInfo& tensor : saved.tensors()) {
    std::string one(tensor.bytes(), '\0'), two(tensor.bytes(), '\0');
    saved.read(tensor, one.data());
    ASSERT_NE(exported.find(tensor.name), nullptr);
    exported.read(*exported.find(tensor.name), two.data());
    EXPECT_EQ(one, two) << tensor.name;
  }
}

TEST_F(RunTrainingTest, a_best_checkpoint_that_went_bad_while_the_run_went_on_becomes_no_final_model) {
  std::string rows;
  for (int i = 0; i < 4; ++i)
    rows += R"({"prompt": "What is this?", "response": "Zebra ZEBRA [{(~|"})"
            "\n";
  tiny_.files().write("validation.jsonl", rows);
  // Flips a bit of the best checkpoint's weights when the last step is done.
  struct : RecordingObserver {
    fs::path run;
    int64_t best_step = 0;
    void on_eval(const EvalRecord& record) override {
      if (record.best) best_step = record.step;
    }
    void on_step(const StepRecord& record) override {
      if (record.step != 30) return;
      const fs::path file = run / ("checkpoint-" + std::to_string(best_step)) / "model.safetensors";
      std::string bytes = read_file(file);
      bytes[bytes.size() - 100] ^= 1;
      std::ofstream(file, std::ios::binary) << bytes;
    }
  } vandal;
  vandal.run = tiny_.run_folder();
  const TrainRequest request = tiny_.request(
      {"dataset.validation_path=" + (tiny_.files() / "validation.jsonl").string(), "training.max_steps=30",
       "evaluation.every=2", "evaluation.keep_best=true", "output.checkpoint_every=0", "output.keep_checkpoints=1"});
  try {
    run_training(request, real_file_system(), {&vandal});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCheckpoint);
    EXPECT_THAT(error.what(), HasSubstr("checkpoint-" + std::to_string(vandal.best_step) + ": the best checkpoint"));
    EXPECT_THAT(error.what(), HasSubstr("model.safetensors: SHA-256 is "));
  }
  EXPECT_FALSE(fs::exists(tiny_.run_folder() / "final_model"));
  EXPECT_EQ(train_on(request).outcome, RunOutcome::kFinished);
  EXPECT_THAT(observer_.warnings, Contains(HasSubstr("the best checkpoint so far")));
}

// Puts a number that is not finite into the base model.
void poison(const TinyRun& tiny) {
  const fs::path path = tiny.base_model() / "model.safetensors";
  std::string bytes = read_file(path);
  const SafetensorsFile file(path);
  const uint64_t header = bytes.size() - file.tensors().back().end;
  const TensorInfo* norm = file.find("model.norm.weight");
  const float not_a_number = std::nanf("");
  std::memcpy(bytes.data() + header + norm->begin, &not_a_number, sizeof(not_a_number));
  tiny.files().write("base/model.safetensors", bytes);
}

TEST_F(RunTrainingTest, a_loss_that_is_not_a_number_stops_the_run_and_names_step_and_rows) {
  poison(tiny_);
  std::string message;
  EXPECT_EQ(kind_of_failure(tiny_.request({"training.shuffle=false"}), message), ErrorKind::kNonFinite);
  EXPECT_THAT(message, AllOf(HasSubstr("step 1:"), HasSubstr(tiny_.data().string() + ":1 (id row-0)"),
                             HasSubstr(":2 (id row-1)"), HasSubstr("training.on_nonfinite: skip")));
  EXPECT_THAT(names_in(tiny_.run_folder()), ::testing::Not(Contains(HasSubstr("checkpoint-"))));
  EXPECT_FALSE(fs::exists(tiny_.run_folder() / "final_model"));
}

TEST_F(RunTrainingTest, skipping_such_steps_is_bounded) {
  poison(tiny_);
  std::string message;
  EXPECT_EQ(kind_of_failure(tiny_.request({"training.on_nonfinite=skip"}), message), ErrorKind::kNonFinite);
  EXPECT_THAT(message, HasSubstr("10 steps in a row"));
  EXPECT_EQ(observer_.steps.size(), 10u);
  EXPECT_TRUE(std::isnan(observer_.steps[0].loss));
}

// Ends a run with an error of its own after the third step.
struct FailsAfterThree : RunObserver {
  bool failed = false;
  void on_step(const StepRecord& record) override {
    if (record.step != 3) return;
    failed = true;
    throw Error(ErrorKind::kNonFinite, "step 3 went wrong");
  }
};

TEST_F(RunTrainingTest, the_manifest_says_that_a_run_failed_until_it_finishes_after_all) {
  FailsAfterThree failing;
  EXPECT_THROW(run_training(tiny_.request(), real_file_system(), {&failing}), Error);
  EXPECT_EQ(status(), "failed");
  EXPECT_EQ(train({}).outcome, RunOutcome::kFinished);
  EXPECT_EQ(status(), "finished");
}

TEST_F(RunTrainingTest, a_failure_that_cannot_be_written_down_is_still_the_one_that_is_reported) {
  FailsAfterThree failing;
  HookedFileSystem files([&](const fs::path& path) {
    if (failing.failed) throw file_error("creating", path, ENOSPC);
  });
  try {
    run_training(tiny_.request(), files, {&failing});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "step 3 went wrong");
  }
}

TEST_F(RunTrainingTest, a_run_that_is_complete_stays_finished_whatever_fails_after_that) {
  struct : RunObserver {
    void on_finish() override { throw Error(ErrorKind::kIo, "the log cannot be written"); }
  } failing;
  EXPECT_THROW(run_training(tiny_.request({"training.max_steps=2"}), real_file_system(), {&failing}), Error);
  EXPECT_EQ(status(), "finished");
  EXPECT_EQ(train({"training.max_steps=2"}).outcome, RunOutcome::kAlreadyFinished);
}

// As when a lock that looks stale, or the whole folder, is removed, and the command started again.
TEST_F(RunTrainingTest, a_run_whose_lock_is_gone_ends_and_leaves_the_folder_to_the_next) {
  struct RemovesTheLock : RunObserver {
    fs::path lock;
    void on_step(const StepRecord& record) override {
      if (record.step == 3) fs::remove(lock);
    }
  } remover;
  remover.lock = tiny_.run_folder() / "run.lock";
  try {
    run_training(tiny_.request(), real_file_system(), {&remover});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kIo);
    EXPECT_THAT(error.what(), HasSubstr("run.lock: was removed or replaced while this run went on"));
  }
  EXPECT_EQ(status(), "running");  // that is the next one's to say
  EXPECT_EQ(lasting_metrics(tiny_.run_folder()).size(), 3u);
}

TEST_F(RunTrainingTest, a_final_model_that_holds_what_no_run_wrote_is_set_aside) {
  tiny_.files().write("run/final_model/notes.txt", "precious");
  EXPECT_EQ(train({"training.max_steps=1"}).outcome, RunOutcome::kFinished);
  EXPECT_EQ(read_file(tiny_.run_folder() / "final_model.aside-1/notes.txt"), "precious");
  EXPECT_THAT(observer_.warnings, Contains(HasSubstr("final_model: holds what no run wrote")));
  EXPECT_EQ(train({"training.max_steps=2"}).outcome, RunOutcome::kFinished);  // this one was ours
  EXPECT_FALSE(fs::exists(tiny_.run_folder() / "final_model.aside-2"));
}

// A LoRA run begins with gradients of zero for A, and an epsilon too small for fp32 then divides zero by zero: loss and
// norm are fine, and the update makes the weights NaN.
const std::vector<std::string> kBreaksWeights = {"lora.rank=2", "training.adam_epsilon=1e-60",
                                                 "training.warmup_steps=0", "training.shuffle=false"};

TEST_F(RunTrainingTest, weights_that_are_not_finite_are_never_saved) {
  std::vector<std::string> assignments = kBreaksWeights;
  for (const char* every : {"output.checkpoint_every=1", "output.checkpoint_every=0"}) {
    fs::remove_all(tiny_.run_folder());
    assignments.insert(assignments.end(), {"training.max_steps=1", every});
    std::string message;
    EXPECT_EQ(kind_of_failure(tiny_.request(assignments), message), ErrorKind::kNonFinite);
    EXPECT_THAT(message, AllOf(HasSubstr("step 1: base_model.model.model.layers.0."), HasSubstr("holds NaN"),
                               HasSubstr(tiny_.data().string() + ":1 (id row-0)"), HasSubstr(":2 (id row-1)")));
    EXPECT_THAT(names_in(tiny_.run_folder()), ::testing::Not(Contains(HasSubstr("checkpoint-"))));
    EXPECT_FALSE(fs::exists(tiny_.run_folder() / "final_model"));
  }
}

TEST_F(RunTrainingTest, weights_that_are_not_finite_stop_the_next_step_before_its_update) {
  std::vector<std::string> assignments = kBreaksWeights;
  assignments.push_back("output.checkpoint_every=0");
  std::string message;
  EXPECT_EQ(kind_of_failure(tiny_.request(assignments), message), ErrorKind::kNonFinite);
  EXPECT_THAT(message,
              AllOf(HasSubstr("step 2: loss nan"), HasSubstr("nothing was updated"), HasSubstr(":3 (id row-2)")));
}

TEST_F(RunTrainingTest, an_evaluation_loss_that_is_not_finite_names_its_rows) {
  std::vector<std::string> assignments = kBreaksWeights;
  assignments.insert(assignments.end(), {"dataset.validation_path=" + tiny_.data().string(), "evaluation.every=1"});
  std::string message;
  EXPECT_EQ(kind_of_failure(tiny_.request(assignments), message), ErrorKind::kNonFinite);
  EXPECT_THAT(message, AllOf(HasSubstr("step 1: the evaluation loss is nan"), HasSubstr(":1 (id row-0)")));
}

TEST_F(RunTrainingTest, the_preflight_names_the_largest_micro_batch_and_changes_no_byte) {
  for (const std::vector<std::string>& more : std::vector<std::vector<std::string>>{
           {"lora.rank=2", "lora.dropout=0.3"},
           {"training.batch_size=1", "training.gradient_accumulation_steps=2", "training.precision=bf16"}}) {
    const auto run = [&](const char* preflight) {
      fs::remove_all(tiny_.run_folder());
      std::vector<std::string> assignments = more;
      assignments.insert(assignments.end(), {preflight, "output.keep_checkpoints=100"});
      observer_ = {};
      train(assignments);
      auto digests = digests_of_results(tiny_.run_folder());
      std::erase_if(digests, [](const auto& entry) {  // the configuration itself is in these
        return entry.first.ends_with("config.yaml") || entry.first.ends_with("manifest.json");
      });
      return std::tuple{digests, lasting_metrics(tiny_.run_folder()), read_file(tiny_.run_folder() / "samples.jsonl")};
    };
    const auto with = run("training.preflight=true");
    EXPECT_THAT(observer_.notes, Contains(HasSubstr("preflight: the largest micro-batch of the run, ")));
    const auto without = run("training.preflight=false");
    EXPECT_THAT(observer_.notes, ::testing::Not(Contains(HasSubstr("preflight"))));
    EXPECT_EQ(with, without);
  }
}

TEST_F(RunTrainingTest, the_rows_of_each_step_are_in_samples_jsonl) {
  train({"training.shuffle=false", "training.batch_size=1", "training.gradient_accumulation_steps=3",
         "training.max_steps=5"});
  EXPECT_EQ(read_file(tiny_.run_folder() / "samples.jsonl"),
            "{\"step\":1,\"micro_batches\":[[\"row-0\"],[\"row-1\"],[\"row-2\"]]}\n"
            "{\"step\":2,\"micro_batches\":[[\"row-3\"],[\"row-4\"],[\"row-5\"]]}\n"
            "{\"step\":3,\"micro_batches\":[[\"row-6\"],[\"row-7\"],[\"row-8\"]]}\n"
            "{\"step\":4,\"micro_batches\":[[\"row-9\"],[\"row-10\"]]}\n"
            "{\"step\":5,\"micro_batches\":[[\"row-0\"],[\"row-1\"],[\"row-2\"]]}\n");
  train({"output.log_samples=false", "training.max_steps=1"}, "without");
  EXPECT_FALSE(fs::exists(tiny_.run_folder("without") / "samples.jsonl"));
}

TEST_F(RunTrainingTest, a_step_that_takes_too_long_is_named_to_whoever_asked) {
  // Many steps: on a busy machine the watching thread may be late for a few.
  TrainRequest request = tiny_.request({"training.step_timeout=1e-6", "training.preflight=false"});
  std::vector<std::string> messages;
  request.on_stall = [&](const std::string& message) { messages.push_back(message); };
  run_training(request, real_file_system(), {});
  ASSERT_FALSE(messages.empty());
  EXPECT_THAT(messages[0], ContainsRegex("^step [0-9]+: not finished after"));
}

TEST_F(RunTrainingTest, a_signal_finishes_the_step_saves_and_says_so) {
  struct Stopper : RunObserver {
    void on_step(const StepRecord& record) override {
      if (record.step == 5) send_stop_signal(SIGTERM);
    }
  } stopper;
  install_stop_signals();
  const RunResult result = run_training(tiny_.request(), real_file_system(), {&stopper});
  install_stop_signals();
  EXPECT_EQ(result.outcome, RunOutcome::kStopped);
  EXPECT_EQ(result.signal, SIGTERM);
  EXPECT_EQ(result.steps, 5);
  EXPECT_TRUE(result.final_model.empty());
  EXPECT_TRUE(fs::exists(tiny_.run_folder() / "checkpoint-5"));
  EXPECT_EQ(train({}).outcome, RunOutcome::kFinished);
  EXPECT_EQ(observer_.first_step, 5);
}

TEST_F(RunTrainingTest, a_second_run_in_the_same_folder_is_refused) {
  struct Intruder : RunObserver {
    const TinyRun* tiny = nullptr;
    std::string message;
    void on_step(const StepRecord& record) override {
      if (record.step != 1) return;
      try {
        run_training(tiny->request(), real_file_system(), {});
      } catch (const Error& error) {
        message = error.what();
      }
    }
  } intruder;
  intruder.tiny = &tiny_;
  run_training(tiny_.request({"training.max_steps=2"}), real_file_system(), {&intruder});
  EXPECT_THAT(intruder.message, HasSubstr("in use by process"));
}

TEST_F(RunTrainingTest, problems_of_the_set_up_have_their_own_kinds_and_words) {
  std::string message;
  EXPECT_EQ(kind_of_failure(tiny_.request({"dataset.data_path=" + (tiny_.files() / "absent.jsonl").string()}), message),
            ErrorKind::kData);
  EXPECT_THAT(message, HasSubstr("not found"));
  EXPECT_EQ(kind_of_failure(tiny_.request({"model.max_seq_length=100000"}), message), ErrorKind::kUsage);
  EXPECT_THAT(message, HasSubstr("model.max_seq_length: 100000"));
  TrainRequest request = tiny_.request();
  request.device = "cuda";
  EXPECT_EQ(kind_of_failure(request, message), ErrorKind::kUsage);
  EXPECT_THAT(message, AllOf(HasSubstr("CUDA"), HasSubstr("--device cpu")));
  request.device = "tpu";
  EXPECT_EQ(kind_of_failure(request, message), ErrorKind::kUsage);
}

}  // namespace
}  // namespace gemma_sft
