// Jobs of a training service in mock mode, as a user types them: no network and no model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "data/files/file_system.h"
#include "tests/e2e/process.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class JobsTest : public ::testing::Test {
 protected:
  ProcessResult run(std::vector<std::string> words, std::map<std::string, std::string> environment = {}) {
    environment["TRAINING_OUTPUT_DIR"] = (dir_ / "runs").string();
    environment["HF_HOME"] = (dir_ / "hub").string();
    return gemma_sft_run(std::move(words), {.folder = dir_.path(), .environment = std::move(environment)});
  }
  ProcessResult train(const std::vector<std::string>& more = {}, std::map<std::string, std::string> environment = {}) {
    std::vector<std::string> words = {"train", "--config", config_};
    words.insert(words.end(), more.begin(), more.end());
    return run(words, std::move(environment));
  }
  nlohmann::json request(const std::string& run_id) {
    return nlohmann::json::parse(read_file(dir_ / ("runs/run_" + run_id) / "job_request.json"));
  }
  static std::string id_in(const std::string& out) {
    const size_t at = out.find("mock-");
    return out.substr(at, 17);
  }

  TempDir dir_;
  std::string config_ = std::string(GEMMA_SFT_SOURCE_DIR) + "/configs/sft_production.yaml";
};

TEST_F(JobsTest, TrainPrintsTheGuidesSixLinesAndLeavesNoModel) {
  const ProcessResult result = train();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const std::string id = id_in(result.out);
  EXPECT_THAT(result.out, StartsWith("✅ Config loaded: " + config_ +
                                     "\n✅ Tunix client initialized (mock mode)\n✅ Dataset loaded: 1000 training "
                                     "examples\n✅ Job submitted to Tunix: " +
                                     id + "\n🔗 Monitor: https://dashboard.tunix.ai/jobs/" + id +
                                     "\n⏳ Polling for completion...\n"));
  EXPECT_THAT(result.out, testing::EndsWith("✅ Job completed: " + id + " (mock mode)\n"));
  EXPECT_THAT(result.err, HasSubstr("315"));  // steps
  for (const std::string& name : dir_.list()) {
    EXPECT_THAT(name, Not(testing::ContainsRegex("safetensors|final_model")));
  }
  const ProcessResult again = train();
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_THAT(again.out, HasSubstr("before: " + id));
}

TEST_F(JobsTest, EveryEndHasItsExitCode) {
  for (const auto& [scenario, code] : std::map<std::string, int>{{"success", 0},
                                                                 {"job_failed", 6},
                                                                 {"job_cancelled", 7},
                                                                 {"job_timeout", 8},
                                                                 {"out_of_memory", 11},
                                                                 {"invalid_api_key", 4},
                                                                 {"quota_exceeded", 5},
                                                                 {"typo", 2}}) {
    const ProcessResult result = train({"--run-id", scenario}, {{"TUNIX_MOCK_SCENARIO", scenario}});
    EXPECT_EQ(result.exit_code, code) << scenario << result.err;
  }
  const auto refused = [&](const std::string& scenario) {
    return train({"--run-id", scenario}, {{"TUNIX_MOCK_SCENARIO", scenario}}).err;
  };
  EXPECT_THAT(refused("invalid_api_key"), HasSubstr("TunixAPIError: 401 Unauthorized - Invalid API key\n"));
  EXPECT_THAT(refused("quota_exceeded"), HasSubstr("TunixAPIError: 429 Too Many Requests - TPU quota exceeded\n"));
  EXPECT_EQ(train({"--set", "tunix.max_cost_usd=0.01"}).exit_code, 5);
}

TEST_F(JobsTest, AJobIsShownWatchedListedAndCancelledByLaterCommands) {
  const std::string id = id_in(train({"--no-wait"}).out);
  EXPECT_THAT(run({"jobs", "show", id}).out, StartsWith(id + ": pending, validating (mock mode)\n"));
  EXPECT_EQ(run({"jobs", "download", id, "--output-dir", "m"}).exit_code, 2);
  const ProcessResult watched = run({"jobs", "watch", id});
  EXPECT_EQ(watched.exit_code, 0) << watched.err;
  EXPECT_THAT(watched.out, HasSubstr(id + ": running, training"));
  EXPECT_THAT(run({"jobs", "list", "--state", "completed"}).out, HasSubstr(id));
  EXPECT_EQ(run({"jobs", "cancel", id}).exit_code, 0);
  EXPECT_EQ(run({"jobs", "download", id, "--output-dir", "m"}).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "m"));
  const ProcessResult link =
      run_process({program("eval_generate"), "--job-id", id, "--watch"},
                  {.folder = dir_.path(), .environment = {{"TRAINING_OUTPUT_DIR", (dir_ / "runs").string()}}});
  EXPECT_EQ(link.exit_code, 0) << link.err;

  const std::string second = id_in(train({"--no-wait", "--resume", "never"}).out);
  EXPECT_NE(second, id);
  EXPECT_THAT(run({"jobs", "cancel", second}).out, HasSubstr("cancelled (mock mode)"));
  EXPECT_EQ(run({"jobs", "watch", second}).exit_code, 7);
  EXPECT_EQ(run({"jobs", "show", "job_abc123xyz"}).exit_code, 10);
  EXPECT_EQ(run({"jobs", "show", "../x"}).exit_code, 2);
  EXPECT_EQ(run({"auth", "test"}).exit_code, 0);
  EXPECT_EQ(run({"quota"}).exit_code, 0);
  EXPECT_EQ(run({"quota"}, {{"TUNIX_MOCK_SCENARIO", "quota_exceeded"}}).exit_code, 5);
}

TEST_F(JobsTest, EveryKeyOfTheServiceChangesWhatIsSent) {
  train({"--run-id", "base"});
  const nlohmann::json base = request("base");
  int run = 0;
  for (const char* set : {"tunix.project_id=other", "tunix.experiment_name=other", "tunix.spot=true",
                          "tunix.timeout_seconds=86400", "tunix.max_cost_usd=100000", "tunix.keep_checkpoints=7",
                          "model.tunix_job_config.accelerator=tpu-v2-8", "model.tunix_job_config.region=europe-west4",
                          "training.learning_rate=3e-4", "lora.rank=4", "output.run_dir=gs://other/place"}) {
    const std::string id = "r" + std::to_string(++run);
    EXPECT_EQ(train({"--run-id", id, "--set", set}).exit_code, 0) << set;
    nlohmann::json changed = request(id);
    for (const char* same : {"labels", "client"}) changed[same] = base[same];
    std::string text = changed.dump(), before = base.dump();
    text.replace(text.find("run_" + id), 4 + id.size(), "run_base");
    EXPECT_NE(text, before) << set;
  }
  EXPECT_EQ(base["output"]["uri"], "gs://tunix-rt-artifacts/training_runs/run_base");
  EXPECT_EQ(base["resources"]["accelerator"], "tpu-v3-8");
}

TEST_F(JobsTest, RealModeNeedsAKeyAndASafeAddressAndTheKeyIsNowhere) {
  const std::string canary = "tunix_sk_dev_CanaryCanary123";
  const std::map<std::string, std::string> real = {{"TUNIX_MODE", "real"}};
  EXPECT_EQ(run({"auth", "test"}, real).exit_code, 4);
  const ProcessResult plain = run({"auth", "test", "--base-url", "http://api.example.org/v1"},
                                  {{"TUNIX_MODE", "real"}, {"TUNIX_API_KEY", canary}});
  EXPECT_EQ(plain.exit_code, 2);
  const ProcessResult nobody = run({"auth", "test", "--base-url", "http://127.0.0.1:1/v1", "--verbose"},
                                   {{"TUNIX_MODE", "real"}, {"TUNIX_API_KEY", canary}, {"TUNIX_RETRY_SECONDS", "0"}});
  EXPECT_EQ(nobody.exit_code, 10) << nobody.err;
  for (const ProcessResult& result : {plain, nobody}) EXPECT_THAT(result.out + result.err, Not(HasSubstr("Canary")));
}

TEST_F(JobsTest, TheEstimateSaysWhatHoldsTheRunWithTheDateOfThePrices) {
  const ProcessResult result = run({"jobs", "estimate", "--config", config_, "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json json = nlohmann::json::parse(result.out, nullptr, false);
  EXPECT_EQ(json["steps"], 315);
  EXPECT_EQ(json["parameters"], 8'537'680'896);
  EXPECT_FALSE(json["prices_as_of"].get<std::string>().empty());
  EXPECT_EQ(json["memory"].size(), 4u);
}

TEST_F(JobsTest, TheEstimateTriesTheGuidesAdviceOnThisRun) {
  const std::string text = run({"jobs", "estimate", "--config", config_}).out;
  EXPECT_THAT(text, HasSubstr("out of quota, take tpu-v2-8: it does not hold this run"));
  EXPECT_THAT(text, HasSubstr("out of memory, take tpu-v3-32: it "));
  EXPECT_THAT(text, HasSubstr("training.batch_size: 4 with gradient_accumulation_steps: 4: tpu-v3-8 does not hold"));
  const std::string bf16 = run({"jobs", "estimate", "--config", config_, "--set", "training.precision=bf16"}).out;
  EXPECT_THAT(bf16, HasSubstr("out of quota, take tpu-v2-8: it does not hold this run"));
}

TEST_F(JobsTest, PreflightLooksAtAllSevenBoxesThoughSomeFail) {
  const ProcessResult result = run({"preflight", "--config", config_});
  EXPECT_EQ(result.exit_code, 3) << result.err;  // the rows of that configuration are not in the repository
  EXPECT_THAT(result.out, StartsWith("❌ dataset built and exported: Data file not found"));
  for (const char* line : {"\n❌ manifest has the expected trace count: ", "\n✅ configuration passes the dry-run: ",
                           "\n✅ API key is valid: accepted by https://api.tunix.ai/v1 (mock mode)\n",
                           "\n✅ quota is available: 1 of 1 tpu-v3-8 available (mock mode)\n",
                           "\n⚠️ output place is writable: ", "\n⚠️ cost is approved: $"}) {
    EXPECT_THAT(result.out, HasSubstr(line));
  }
  const nlohmann::json json =
      nlohmann::json::parse(run({"preflight", "--config", config_, "--json"}).out, nullptr, false);
  EXPECT_EQ(json["checks"].size(), 7u);
  EXPECT_EQ(json["passed"], false);
  EXPECT_EQ(run({"preflight", "--config", config_}, {{"TUNIX_MOCK_SCENARIO", "invalid_api_key"}}).exit_code, 3);
}

}  // namespace
}  // namespace gemma_sft
