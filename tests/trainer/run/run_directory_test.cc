#include "trainer/run/run_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

RunConfig config_of(const std::string& run_dir) {
  RunConfig config;
  config.model.base_model = "google/gemma-2b-it";
  config.dataset.data_path = "rows.jsonl";
  config.output.run_dir = run_dir;
  return config;
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(RunId, IsTheBeginningOfTheDigestOfTheConfigurationWithoutItsPlace) {
  const RunConfig config = config_of("a");
  EXPECT_EQ(default_run_id(config), sha256_hex(identity_yaml(config)).substr(0, 12));
  EXPECT_EQ(default_run_id(config), default_run_id(config_of("somewhere/else")));
  RunConfig other = config;
  other.output.checkpoint_every = 7;
  other.output.keep_checkpoints = 9;
  EXPECT_EQ(default_run_id(other), default_run_id(config));
  other.training.seed = 43;
  EXPECT_NE(default_run_id(other), default_run_id(config));
}

TEST(RunPlace, ARunIdIsPartOfAFoldersNameAndNoSecret) {
  const RunConfig config = config_of("runs");
  for (const std::string& id : {std::string("a.B_c-9"), std::string(128, 'a')}) {
    EXPECT_EQ(resolve_run_place(config, {.run_id = id}).id, id);
  }
  const auto refusal = [&](const std::string& id) -> std::string {
    try {
      resolve_run_place(config, {.run_id = id});
      return "accepted";
    } catch (const Error& error) {
      return error.what();
    }
  };
  for (const std::string& id : {std::string(), std::string("a/b"), std::string("a b"), std::string(129, 'a')}) {
    EXPECT_THAT(refusal(id), HasSubstr("cannot be part of a folder's name")) << id;
  }
  const std::string token = "hf_" + std::string(34, 'x');
  EXPECT_EQ(refusal(token), "--run-id: looks like a secret, and would be a folder's name");
}

TEST(RunPlace, IsNoFolderWithFilesOfSomebodyElseByTheNamesOfARun) {
  for (const char* name : {"config.yaml", "metrics.jsonl", "samples.jsonl", "data_report.json", "final_model/x"}) {
    const TempDir dir;
    dir.write("other.txt", "");
    require_own_folder(dir.path());
    dir.write(name, "mine");
    EXPECT_THAT(message_of([&] { require_own_folder(dir.path()); }), HasSubstr("is there, and no run made it")) << name;
    dir.write("run.lock", "");
    require_own_folder(dir.path());
    dir.write("state.json", "{}");
    dir.write("manifest.json", "{}");
    EXPECT_THAT(message_of([&] { require_own_folder(dir.path()); }), HasSubstr("is a checkpoint"));
  }
  const TempDir dir;
  require_own_folder(dir / "absent");
}

TEST(RunPlace, IsBelowTheRunDirAndKeepsAddressesAsTheyAre) {
  const RunConfig config = config_of("gs://bucket/runs");
  EXPECT_EQ(resolve_run_place(config, {.run_id = "abc123"}).folder.string(), "gs://bucket/runs/run_abc123");
  EXPECT_EQ(resolve_run_place(config_of("artifacts/training_runs"), {.run_id = "abc123"}).folder.string(),
            "artifacts/training_runs/run_abc123");
  const RunPlace place = resolve_run_place(config_of("runs/"), {});
  EXPECT_EQ(place.folder.string(), "runs/run_" + place.id);
  EXPECT_EQ(place.id.size(), 12u);
}

TEST(RunPlace, OutputNamesTheVeryFolder) {
  const RunPlace place = resolve_run_place(config_of("runs"), {.exact_folder = "here/it/is"});
  EXPECT_EQ(place.folder.string(), "here/it/is");
  EXPECT_EQ(place.id, default_run_id(config_of("runs")));
}

TEST(RunPlace, AnOutputFolderThatHoldsARunKeepsItsId) {
  const TempDir dir;
  const RunConfig config = config_of("r");
  const std::string folder = (dir / "out").string();
  dir.write("out/run_manifest.json", "{\"run_id\": \"earlier\"}");
  EXPECT_EQ(resolve_run_place(config, {.exact_folder = folder}).id, "earlier");
  EXPECT_EQ(resolve_run_place(config, {.run_id = "mine", .exact_folder = folder}).id, "mine");
  for (const char* broken : {"", "{", "[]", "{}", "{\"run_id\": 5}"}) {
    dir.write("out/run_manifest.json", broken);
    EXPECT_EQ(resolve_run_place(config, {.exact_folder = folder}).id, default_run_id(config)) << broken;
  }
}

TEST(RunPlace, NeverTakesTheNextFreeSuffixAndMakesNothing) {
  const TempDir dir;
  const RunConfig config = config_of(dir.path().string());
  const PlaceRequest request{.run_id = "x", .exact_folder = {}, .resume = ResumeMode::kNever};
  EXPECT_EQ(resolve_run_place(config, request).id, "x");
  EXPECT_THAT(dir.list(), ElementsAre());
  dir.write("run_x/metrics.jsonl", "");
  EXPECT_EQ(resolve_run_place(config, request).id, "x-2");
  dir.write("run_x-2", "a file in the way");
  EXPECT_EQ(resolve_run_place(config, request).folder, dir.path() / "run_x-3");
  fs::create_directory(dir / "run_x-3");  // empty: free
  EXPECT_EQ(resolve_run_place(config, request).id, "x-3");
  EXPECT_EQ(resolve_run_place(config, {.run_id = "x"}).id, "x");
}

TEST(RunPlace, NeverRefusesAnOutputFolderThatHoldsSomething) {
  const TempDir dir;
  dir.write("out/metrics.jsonl", "");
  const PlaceRequest request{.run_id = {}, .exact_folder = (dir / "out").string(), .resume = ResumeMode::kNever};
  EXPECT_THAT(message_of([&] { resolve_run_place(config_of("r"), request); }),
              HasSubstr("--resume never needs a folder"));
  const RunPlace exact = resolve_run_place(config_of("r"), {.exact_folder = (dir / "out").string()});
  EXPECT_EQ(describe_new_start(exact), "start anew with another --output") << "as --resume never would refuse it";
  EXPECT_THAT(describe_new_start(resolve_run_place(config_of("r"), {})), HasSubstr("--resume never"));
  EXPECT_EQ(resolve_run_place(config_of("r"), {.exact_folder = (dir / "out").string()}).folder, dir / "out");
}

TEST(RunPlace, ARunIdMustBePartOfAName) {
  for (const char* id : {"", "a/b", "..\\x", "a b", "ä", "a\nb"}) {
    EXPECT_THAT(message_of([&] { resolve_run_place(config_of("r"), {.run_id = id}); }), HasSubstr("--run-id")) << id;
  }
}

TEST(RunLock, ASecondOwnerIsRefusedWithTheFirstOnesPidAndHost) {
  const TempDir dir;
  {
    const RunLock lock(dir / "run", real_file_system());
    const std::string message = message_of([&] { const RunLock second(dir / "run", real_file_system()); });
    EXPECT_THAT(message, HasSubstr("in use by process " + std::to_string(getpid()) + " on "));
    char host[256] = "";
    ASSERT_EQ(gethostname(host, sizeof(host)), 0);
    EXPECT_THAT(message, HasSubstr(host));
  }
  const RunLock third(dir / "run", real_file_system());  // free again
}

TEST(RunLock, IsLostWithItsFile) {
  const TempDir dir;
  const RunLock lock(dir / "run", real_file_system());
  EXPECT_TRUE(lock.is_held());
  fs::remove(dir / "run/run.lock");
  EXPECT_FALSE(lock.is_held());
  const RunLock next(dir / "run", real_file_system());
  EXPECT_TRUE(next.is_held());
  EXPECT_FALSE(lock.is_held());
  EXPECT_THAT(message_of([&] { lock.require_held(); }), HasSubstr("run.lock: was removed or replaced"));
  next.require_held();
}

TEST(RunLock, TheLockOfAKilledProcessIsTakenOver) {
  const TempDir dir;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const RunLock lock(dir / "run", real_file_system());
    if (write(ready[1], "x", 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_THAT(message_of([&] { const RunLock second(dir / "run", real_file_system()); }),
              HasSubstr("process " + std::to_string(child)));
  ASSERT_EQ(kill(child, SIGKILL), 0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  const RunLock mine(dir / "run", real_file_system());
  std::ifstream stream(dir / "run" / "run.lock");
  std::string line;
  std::getline(stream, line);
  EXPECT_THAT(line, HasSubstr("process " + std::to_string(getpid())));
  close(ready[0]);
  close(ready[1]);
}

TEST(RunLock, EveryFailureOfTheFileLayerIsReportedAndLeavesTheFolderFree) {
  for (int64_t call = 0;; ++call) {
    const TempDir dir;
    FailingFileSystem files({.call = call});
    try {
      const RunLock lock(dir / "run", files);
      EXPECT_FALSE(files.has_failed()) << "call " << call << " failed and nobody said so";
      EXPECT_GT(call, 3);
      break;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
    }
    const RunLock again(dir / "run", real_file_system());
  }
}

StepRecord step_record(int64_t step) {
  return {.step = step,
          .epoch = 0.1 * static_cast<double>(step),
          .loss = 1.0 / 3.0,
          .learning_rate = 2e-5 / 3,
          .grad_norm = 0.1f,
          .tokens = 100,
          .target_tokens = 40,
          .tokens_per_second = 1234.5,
          .step_seconds = 0.081,
          .data_wait_seconds = 0.001,
          .peak_memory_bytes = 1 << 30,
          .device = "cpu"};
}

std::vector<nlohmann::json> rows_of(const fs::path& folder) {
  std::ifstream stream(folder / "metrics.jsonl");
  std::vector<nlohmann::json> rows;
  for (std::string line; std::getline(stream, line);) rows.push_back(nlohmann::json::parse(line));
  return rows;
}

TEST(MetricsFile, ARowHasEveryFieldWithFullPrecision) {
  const TempDir dir;
  MetricsFile metrics(dir.path(), real_file_system());
  metrics.on_step(step_record(1));
  metrics.on_eval(
      {.step = 1, .epoch = 0.1, .eval_loss = 2.0 / 3.0, .eval_tokens = 77, .eval_seconds = 0.5, .best = true});
  const auto rows = rows_of(dir.path());  // without closing: each row is written at once
  ASSERT_EQ(rows.size(), 2u);
  std::vector<std::string> names;
  for (const auto& [name, value] : rows[0].items()) names.push_back(name);
  EXPECT_THAT(names, testing::UnorderedElementsAre("step", "epoch", "loss", "learning_rate", "grad_norm", "tokens",
                                                   "target_tokens", "tokens_per_second", "step_seconds",
                                                   "data_wait_seconds", "peak_memory_bytes", "timestamp", "device"));
  EXPECT_EQ(rows[0]["loss"].get<double>(), 1.0 / 3.0);
  EXPECT_EQ(rows[0]["learning_rate"].get<double>(), 2e-5 / 3);
  EXPECT_EQ(rows[0]["grad_norm"].get<double>(), static_cast<double>(0.1f));
  EXPECT_THAT(rows[0]["timestamp"].get<std::string>(),
              testing::MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z"));
  EXPECT_EQ(rows[1]["eval_loss"].get<double>(), 2.0 / 3.0);
  EXPECT_FALSE(rows[1].contains("loss"));
}

TEST(MetricsFile, TruncationKeepsRowsUpToTheStepWithTheirEvaluationAndAppendsAfterThem) {
  const TempDir dir;
  MetricsFile metrics(dir.path(), real_file_system());
  for (int64_t step = 1; step <= 4; ++step) {
    metrics.on_step(step_record(step));
    metrics.on_eval({.step = step});
  }
  metrics.truncate_after(2);
  metrics.on_step(step_record(3));
  std::vector<int64_t> steps;
  for (const auto& row : rows_of(dir.path())) steps.push_back(row["step"]);
  EXPECT_THAT(steps, ElementsAre(1, 1, 2, 2, 3));
  metrics.truncate_after(0);
  EXPECT_THAT(rows_of(dir.path()), ElementsAre());
}

TEST(MetricsFile, ALineTornByACrashIsCutEvenWhenItReadsWell) {
  for (const char* torn : {"{\"step\":2,\"lo", "{\"step\":2}", "nonsense\n", "{\"loss\":1}\n", "\n"}) {
    const TempDir dir;
    dir.write("metrics.jsonl", std::string("{\"step\":1}\n") + torn);
    MetricsFile metrics(dir.path(), real_file_system());
    metrics.truncate_after(5);
    metrics.on_step(step_record(2));
    const auto rows = rows_of(dir.path());
    ASSERT_EQ(rows.size(), 2u) << torn;
    EXPECT_EQ(rows[1]["step"], 2);
  }
}

TEST(MetricsFile, ARowThatWentBadCostsNoneOfTheGoodOnesBehindIt) {
  for (const std::string& bad : {std::string("nonsense"), std::string(100, '\0'), std::string(100'000, '['),
                                 std::string("{\"loss\":1}"), std::string("{\"step\":-1e999}")}) {
    const TempDir dir;
    const std::string kept = "{\"step\":1}\n" + bad + "\n{\"step\":3}\n";
    dir.write("metrics.jsonl", kept + "{\"step\":4}\n");
    MetricsFile(dir.path(), real_file_system()).truncate_after(3);
    EXPECT_EQ(read_file(dir / "metrics.jsonl"), kept);
  }
}

TEST(MetricsFile, EveryFailureOfTheFileLayerIsReported) {
  int failures = 0;
  for (int64_t call = 0;; ++call) {
    const TempDir dir;
    FailingFileSystem files({.call = call, .written_fraction = 0.5});
    try {
      MetricsFile metrics(dir.path(), files);
      metrics.on_step(step_record(1));
      metrics.on_step(step_record(2));
      metrics.sync();
      metrics.truncate_after(1);
      metrics.on_step(step_record(2));
      EXPECT_FALSE(files.has_failed());
      break;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
      ++failures;
    }
  }
  EXPECT_GE(failures, 6);
}

TEST(RunPlace, AnIdThatNoRunHasIsNone) {
  const TempDir dir;
  for (const char* id : {R"(a\u001b[2J)", R"(a\nb)", "../a", ""}) {
    dir.write("out/run_manifest.json", std::string(R"({"run_id": ")") + id + "\"}");
    EXPECT_FALSE(find_run_id(dir / "out")) << id;
  }
  dir.write("out/run_manifest.json", R"({"run_id": ")" + std::string(900'000, 'x') + "\"}");
  EXPECT_FALSE(find_run_id(dir / "out"));
  const RunConfig config = config_of("r");
  EXPECT_EQ(resolve_run_place(config, {.exact_folder = (dir / "out").string()}).id, default_run_id(config));
}

TEST(RunLock, WhatItsFileSaysIsShownWithoutControlsAndInPart) {
  const TempDir dir;
  const RunLock lock(dir.path(), real_file_system());
  const auto refusal = [&] { return message_of([&] { RunLock(dir.path(), real_file_system()); }); };
  dir.write("run.lock", "process 1\x1b[2J\x9b\nsecond line");
  EXPECT_THAT(refusal(), HasSubstr("in use by process 1\\u001b[2J\\x9b; wait for it"));
  dir.write("run.lock", std::string(5'000'000, 'x'));
  EXPECT_LT(refusal().size(), 1000u);
}

}  // namespace
}  // namespace gemma_sft
