// The programs as a user types them, in real mode, against a job service on this machine: what they print and leave,
// what they send, what Ctrl-C and kill -9 do, and that the key is nowhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "data/files/file_system.h"
#include "tests/e2e/process.h"
#include "tests/e2e/workspace.h"
#include "tests/testing/suite_count.h"
#include "tests/trainer/tunix/loopback_server.h"
#include "tests/trainer/tunix/scripted_service.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

const std::string kKey = "tunix_sk_prod_Zebra9/Canary+Key42=Quagga";

class JobsServiceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    workspace_ = new Workspace();
    workspace_->files().write("c.yaml",
                              "model:\n  base_model: base\n  max_seq_length: 128\n"
                              "dataset:\n  data_path: rows.jsonl\n"
                              "training:\n  num_epochs: 1\n  batch_size: 4\n  learning_rate: 1e-3\n"
                              "tunix:\n  project_id: p\n");
  }
  static void TearDownTestSuite() {
    delete workspace_;
    workspace_ = nullptr;
  }

  JobsServiceTest() : server_([this](const HttpRequest& request) { return handle(request); }) {
    service_.key = kKey;
    service_.max_part_bytes = 4096;
    service_.looks_until_end = 1;
  }

  LoopbackReply handle(const HttpRequest& request) {
    if (instead_) return instead_(request);
    return {.response = service_.answer(request)};
  }

  ProcessOptions options(const std::string& mode = "real") const {
    ProcessOptions made = workspace_->options();
    made.environment = {{"TUNIX_MODE", mode},
                        {"TUNIX_API_KEY", kKey},
                        {"TUNIX_BASE_URL", server_.url()},
                        {"TUNIX_RETRY_SECONDS", retry_seconds_},
                        {"TRAINING_OUTPUT_DIR", runs().string()}};
    return made;
  }
  fs::path runs() const { return dir_ / "runs"; }
  ProcessResult run(std::vector<std::string> words) const { return gemma_sft_run(std::move(words), options()); }
  std::vector<std::string> train_words(const std::string& run, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {program("gemma-sft"), "train", "--config", "c.yaml", "--run-id", run};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  ProcessResult train(const std::string& run, const std::vector<std::string>& more = {}) const {
    return run_process(train_words(run, more), options());
  }
  std::string job_id(size_t index = 0) const { return service_.job(index).at("id"); }
  size_t requests_to(const std::string& end) const {
    size_t count = 0;
    for (const HttpRequest& request : server_.requests()) count += request.url.ends_with(end);
    return count;
  }

  static Workspace* workspace_;
  TempDir dir_;
  ScriptedService service_;
  std::function<LoopbackReply(const HttpRequest&)> instead_;
  std::string retry_seconds_ = "60";
  LoopbackServer server_;  // last: it calls handle()
};
Workspace* JobsServiceTest::workspace_ = nullptr;

TEST_F(JobsServiceTest, TrainPrintsTheGuidesSixLinesAndFetchesTheModel) {
  const ProcessResult result = train("a");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const std::string id = job_id();
  EXPECT_EQ(result.out,
            "✅ Config loaded: c.yaml\n✅ Tunix client initialized (real mode)\n"
            "✅ Dataset loaded: 40 training examples\n✅ Job submitted to Tunix: " +
                id + "\n🔗 Monitor: https://dashboard.tunix.ai/jobs/" + id + "\n⏳ Polling for completion...\n⏳ " + id +
                ": completed, step 1 of 1\n✅ Job completed: " + id +
                "\n✅ Model downloaded: " + (runs() / "run_a/downloaded/final_model").string() + "\n");
  for (const auto& [path, bytes] : service_.files) EXPECT_EQ(read_file(runs() / "run_a/downloaded" / path), bytes);
  // What was sent is what `tokenize` shows and the native engine trains on.
  const ProcessResult tokens = run({"tokenize", "--model", "base", "--input", "rows.jsonl"});
  EXPECT_EQ(service_.dataset(service_.job(0).at("spec").at("dataset_id")), tokens.out);

  const ProcessResult again = train("a");
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("before: " + id));
  EXPECT_EQ(service_.jobs(), 1u);
}

TEST_F(JobsServiceTest, WaitingAndDownloadingAreLeftOutWhenAskedTo) {
  EXPECT_EQ(train("stay", {"--no-download"}).exit_code, 0);
  EXPECT_FALSE(fs::exists(runs() / "run_stay/downloaded"));
  const ProcessResult left = train("leave", {"--no-wait"});
  EXPECT_EQ(left.exit_code, 0);
  EXPECT_THAT(left.out, Not(HasSubstr("Polling")));
  EXPECT_THAT(left.err, HasSubstr("gemma-sft jobs watch " + job_id(1)));
}

TEST_F(JobsServiceTest, EveryCommandOfTheGuideWorksOnAJob) {
  service_.looks_until_end = 3;
  train("a", {"--no-wait"});
  const std::string id = job_id();
  EXPECT_THAT(run({"jobs", "show", id}).out, StartsWith(id + ": pending, queued"));
  EXPECT_THAT(run({"jobs", "list"}).out, HasSubstr(id));
  const auto eval_generate = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {program("eval_generate"), "--job-id", id};
    words.insert(words.end(), more.begin(), more.end());
    return run_process(words, options());
  };
  const ProcessResult early = eval_generate({"--download", "--output-dir", (dir_ / "m").string()});
  EXPECT_EQ(early.exit_code, 2) << early.out;
  EXPECT_THAT(early.err, HasSubstr("running"));
  const ProcessResult watched = eval_generate({"--watch"});
  EXPECT_EQ(watched.exit_code, 0) << watched.err;
  EXPECT_THAT(watched.out, HasSubstr("log event 1\n"));
  EXPECT_THAT(watched.out, EndsWith("✅ Job completed: " + id + "\n"));
  const ProcessResult fetched = eval_generate({"--download", "--output-dir", (dir_ / "m").string()});
  EXPECT_EQ(fetched.exit_code, 0) << fetched.err;
  for (const auto& [path, bytes] : service_.files) EXPECT_EQ(read_file(dir_ / "m" / path), bytes);
  EXPECT_EQ(run({"jobs", "cancel", id}).exit_code, 0);  // it has ended, and that is told
  EXPECT_EQ(run({"jobs", "show", "job_unknown12345"}).exit_code, 10);
  EXPECT_THAT(run({"auth", "test"}).out, StartsWith("✅ The key is accepted by " + server_.url()));
  EXPECT_THAT(run({"quota"}).err, HasSubstr("--project-id"));
  EXPECT_THAT(run({"quota", "--project-id", "p"}).out, StartsWith("8 of 8 available"));
  const ProcessResult estimate = run({"jobs", "estimate", "--config", "c.yaml", "--json"});
  const nlohmann::json json = nlohmann::json::parse(estimate.out, nullptr, false);
  EXPECT_EQ(json["service"]["usd"]["high"], 16) << estimate.out << estimate.err;
  EXPECT_EQ(json["quota"]["available"], 8);
  EXPECT_EQ(json["memory"].size(), 1u);  // the service's accelerators, not the table's
  const ProcessResult preflight = run({"preflight", "--config", "c.yaml"});
  EXPECT_EQ(preflight.exit_code, 0) << preflight.out;
  EXPECT_THAT(preflight.out, HasSubstr("✅ API key is valid: accepted by " + server_.url()));
}

// Where a job is stands in its run's record. One that cannot be read is no reason to send the key somewhere else.
TEST_F(JobsServiceTest, WithoutAReadableRecordTheKeyGoesToNoOtherService) {
  ASSERT_EQ(train("a", {"--no-wait"}).exit_code, 0);
  retry_seconds_ = "0";
  ProcessOptions without_address = options();
  without_address.environment.erase("TUNIX_BASE_URL");
  const auto show = [&](const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = {"jobs", "show", job_id()};
    words.insert(words.end(), more.begin(), more.end());
    return gemma_sft_run(std::move(words), without_address);
  };
  EXPECT_EQ(show().exit_code, 0);
  const fs::path record = runs() / "run_a/job.json";
  const std::string text = read_file(record);
  const std::vector<std::function<void()>> damages = {
      [&] { dir_.write("runs/run_a/job.json", text.substr(0, text.size() / 2)); },
      [&] {
        fs::remove(record);
        fs::create_symlink("job.json", record);  // leads to itself
      }};
  for (const std::function<void()>& damage : damages) {
    damage();
    const ProcessResult refused = show();
    EXPECT_EQ(refused.exit_code, 9) << refused.err;
    EXPECT_THAT(refused.err, HasSubstr(record.string()));
    EXPECT_THAT(refused.err, HasSubstr("--base-url"));
    EXPECT_EQ(show({"--base-url", server_.url()}).exit_code, 0);
  }
}

TEST_F(JobsServiceTest, ASettingThatNoJobCanHonourIsRefusedBeforeAnythingIsSent) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> refused = {
      {"lora.dropout: 0.1", {"--set", "lora.rank=4", "--set", "lora.dropout=0.1"}},
      {"lora.init_from: x", {"--set", "lora.rank=4", "--set", "lora.init_from=x"}},
      {"lora.target_modules: \"*.99.*\"", {"--set", "lora.rank=4", "--set", "lora.target_modules=[q_proj, '*.99.*']"}},
      {"training.stochastic_rounding",
       {"--set", "training.precision=bf16", "--set", "training.stochastic_rounding=true"}},
      {"evaluation.keep_best", {"--set", "dataset.validation_fraction=0.3", "--set", "evaluation.keep_best=true"}},
      {"training.batch_tokens: 2 ", {"--set", "training.batch_size=null", "--set", "training.batch_tokens=2"}},
  };
  for (const auto& [named, settings] : refused) {
    for (const std::string mode : {"real", "mock"}) {
      const ProcessResult result = run_process(train_words("a", settings), options(mode));
      EXPECT_EQ(result.exit_code, 2) << named << result.out << result.err;
      EXPECT_THAT(result.err, HasSubstr("error: " + named));
      EXPECT_THAT(result.out, Not(HasSubstr("submitted")));
    }
  }
  for (const HttpRequest& request : server_.requests()) EXPECT_EQ(request.method, HttpMethod::kGet) << request.url;
  EXPECT_FALSE(fs::exists(runs() / "run_a"));
  // What needs no data is refused by everything that looks at the configuration, without a request.
  const size_t requests = server_.requests().size();
  const std::vector<std::string> dropout = {"--set", "lora.rank=4", "--set", "lora.dropout=0.1"};
  std::vector<std::string> dry = dropout, estimate = {"jobs", "estimate", "--config", "c.yaml"};
  dry.emplace_back("--dry-run");
  estimate.insert(estimate.end(), dropout.begin(), dropout.end());
  EXPECT_EQ(train("a", dry).exit_code, 2);
  EXPECT_EQ(run(estimate).exit_code, 2);
  EXPECT_EQ(server_.requests().size(), requests);
  std::vector<std::string> preflight = {"preflight", "--config", "c.yaml"};
  preflight.insert(preflight.end(), dropout.begin(), dropout.end());
  EXPECT_THAT(run(preflight).out, HasSubstr("❌ configuration passes the dry-run: lora.dropout: 0.1"));
  // On this machine all of it trains.
  dry.insert(dry.end(), {"--backend", "native"});
  EXPECT_EQ(train("a", dry).exit_code, 0);
}

TEST_F(JobsServiceTest, EveryEndOfAJobHasItsExitCodeAndItsWords) {
  const auto end = [&](const std::string& state, const std::string& message) {
    service_.end_state = state;
    service_.end_error = {{"code", "runner_failed"}, {"message", message}, {"hint", nullptr}};
    static int number = 0;
    return train("end" + std::to_string(number++));
  };
  EXPECT_EQ(end("failed", "the runner ended").exit_code, 6);
  EXPECT_EQ(end("cancelled", "").exit_code, 7);
  EXPECT_EQ(end("timeout", "after 60 s").exit_code, 8);
  for (const char* text :
       {"RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
        "Used 28.59G of 15.75G hbm."}) {
    const ProcessResult memory = end("failed", text);
    EXPECT_EQ(memory.exit_code, 11) << memory.err;
    EXPECT_THAT(memory.err, HasSubstr(text));
    EXPECT_THAT(memory.err, HasSubstr("Halve training.batch_size"));
  }
}

bool comes_to_hold(const fs::path& file, const std::string& text) {
  for (int i = 0; i < 3000; ++i) {
    if (fs::exists(file) && read_file(file).find(text) != std::string::npos) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

TEST_F(JobsServiceTest, CtrlCDetachesAndTheJobGoesOn) {
  service_.looks_until_end = 1000;
  ProcessOptions to_file = options();
  to_file.stdout_to = dir_.write("out.txt", "");
  Process process(train_words("a"), to_file);
  ASSERT_TRUE(comes_to_hold(dir_ / "out.txt", "pending"));
  process.send(SIGINT);
  const ProcessResult result = process.wait();
  EXPECT_EQ(result.shell_code(), 130);
  EXPECT_THAT(result.err, HasSubstr("gemma-sft jobs watch " + job_id()));
  EXPECT_THAT(result.err, HasSubstr("gemma-sft jobs cancel " + job_id()));
  EXPECT_EQ(requests_to("/cancel"), 0u);
}

TEST_F(JobsServiceTest, CtrlCWhileTheServiceIsSilentSaysThatTheJobWillBeLookedFor) {
  instead_ = [&](const HttpRequest& request) {
    const bool submits = request.method == HttpMethod::kPost && request.url == "/v1/jobs";
    return LoopbackReply{.response = service_.answer(request), .delay_seconds = submits ? 5.0 : 0.0};
  };
  Process process(train_words("a", {"--no-wait"}), options());
  while (requests_to("/v1/jobs") == 0 && !process.ends_within(0.01)) {
  }
  process.send(SIGINT);
  const ProcessResult result = process.wait();
  EXPECT_EQ(result.shell_code(), 130);
  EXPECT_THAT(result.err, HasSubstr("looks for the job before it submits again"));
  instead_ = nullptr;
  EXPECT_EQ(train("a", {"--no-wait"}).exit_code, 0);
  EXPECT_EQ(service_.jobs(), 1u);
}

// kill -9 at random moments from the start to the end, and the same command again: one job each.
TEST_F(JobsServiceTest, KilledAtAnyMomentASubmissionMakesOneJob) {
  SuiteCount count("H5 kill -9 of train at random moments");
  std::mt19937_64 random(suite_seed());
  instead_ = [&](const HttpRequest& request) {
    return LoopbackReply{.response = service_.answer(request), .delay_seconds = 0.003};
  };
  const double whole = train("measured", {"--no-wait"}).seconds;
  int64_t killed = 0;
  for (int64_t i = 0; i < case_count(50, 500); ++i) {
    service_.honours_keys = i % 2 == 0;
    const std::string name = "kill" + std::to_string(i);
    Process process(train_words(name, {"--no-wait"}), options());
    if (!process.ends_within(std::uniform_real_distribution<double>(0, 1.1 * whole)(random))) {
      process.send(SIGKILL);
      ++killed;
    }
    process.wait();
    const ProcessResult again = train(name, {"--no-wait"});
    const size_t jobs = static_cast<size_t>(i) + 2;
    const bool one =
        again.exit_code == 0 && service_.jobs() == jobs && again.out.find(job_id(jobs - 1)) != std::string::npos;
    ASSERT_TRUE(count.add(one)) << "kill " << i << " of seed " << suite_seed() << ": " << service_.jobs() << " jobs\n"
                                << again.out << again.err;
  }
  count.note(std::to_string(killed) + " killed before their end");
  EXPECT_GT(killed, count.cases() / 3);
}

// Every form that the key may come back in, as the service might write it.
std::vector<std::string> key_forms() {
  std::string percent, escaped;
  for (const char c : kKey) {
    char hex[16];
    std::snprintf(hex, sizeof hex, "%%%02x", static_cast<unsigned>(c));
    percent += hex;
    std::snprintf(hex, sizeof hex, "\\u%04x", static_cast<unsigned>(c));
    escaped += hex;
  }
  return {kKey,
          "Bearer " + kKey,
          "dHVuaXhfc2tfcHJvZF9aZWJyYTkvQ2FuYXJ5K0tleTQyPVF1YWdnYQ==",          // base64 of the key
          "QmVhcmVyIHR1bml4X3NrX3Byb2RfWmVicmE5L0NhbmFyeStLZXk0Mj1RdWFnZ2E=",  // and of "Bearer " and the key
          "tunix_sk_prod_Zebra9%2FCanary%2BKey42%3DQuagga",
          percent,
          escaped,
          "tunix_sk_prod_Zebra9\\/Canary+Key42=Quagga",
          kKey.substr(0, 22),
          kKey.substr(kKey.size() - 8)};
}

// Pieces of those forms that nothing of ours says by chance.
const std::vector<std::string> kCanaries = {"Zebra9",       "Canary",   "Key42",    "2=Quagga",  "Q2FuYXJ5K0tl",
                                            "L0NhbmFyeStL", "PVF1YWdn", "Mj1RdWFn", "%5a%65%62", "\\u005a\\u0065"};

bool is_without_canary(const std::string& text) {
  return std::none_of(kCanaries.begin(), kCanaries.end(),
                      [&](const std::string& canary) { return text.find(canary) != std::string::npos; });
}

TEST_F(JobsServiceTest, AKeyThatTheServiceEchoesIsNowhere) {
  service_.looks_until_end = 2;
  ASSERT_EQ(train("a", {"--no-wait"}).exit_code, 0);
  const std::string id = job_id();
  const std::string sha(64, 'a');
  retry_seconds_ = "0";
  using Json = nlohmann::json;
  // What a form of the key does to the answers: each place that the client shows, stores or follows.
  const auto job = [&](const std::string& state, const std::string& form) {
    return Json{{"id", id},
                {"state", state},
                {"phase", form},
                {"dashboard_url", form},
                {"experiment_name", form},
                {"accelerator", form},
                {"created_at", form},
                {"error", {{"code", form}, {"message", form}, {"hint", form}}}};
  };
  const std::vector<std::function<LoopbackReply(const std::string&, const HttpRequest&)>> places = {
      [](const std::string& form, const HttpRequest&) {
        return LoopbackReply{
            .response = {400, {{"X-Request-Id", form}}, Json{{"error", {{"code", form}, {"message", form}}}}.dump()}};
      },
      [](const std::string& form, const HttpRequest&) {
        return LoopbackReply{.response = {401, {{"WWW-Authenticate", form}}, "<html>you sent " + form + "</html>"}};
      },
      [](const std::string& form, const HttpRequest&) {
        return LoopbackReply{.response = {200, {{"Tunix-Contract", form}}, "{}"}};
      },
      [](const std::string& form, const HttpRequest&) {
        return LoopbackReply{.response = {302, {{"Location", "https://" + form + ".example.org/" + form}}, form}};
      },
      [](const std::string& form, const HttpRequest&) {
        return LoopbackReply{.response = {200, {}, "{\"id\": \"" + form + "\", " + form}};
      },
      [&](const std::string& form, const HttpRequest& request) {
        if (request.url.ends_with("/artifacts")) {
          return LoopbackReply{
              .response = {200,
                           {},
                           Json{{"complete", true},
                                {"data", {{{"path", form}, {"kind", "final_model"}, {"size", 1}, {"sha256", sha}}}}}
                               .dump()}};
        }
        if (request.url.find("/events") != std::string::npos) {
          return LoopbackReply{.response = {200,
                                            {{"Content-Type", "text/event-stream"}},
                                            "id: 1\nevent: " + form + "\ndata: " +
                                                Json{{"seq", 1}, {"type", form}, {"message", form}}.dump() + "\n\n"}};
        }
        if (request.url.find("/jobs?") != std::string::npos) {
          return LoopbackReply{
              .response = {200, {}, Json{{"data", {job("failed", form)}}, {"has_more", true}, {"next", form}}.dump()}};
        }
        if (request.url.ends_with("/auth/test")) {
          return LoopbackReply{
              .response = {
                  200,
                  {},
                  Json{{"ok", true}, {"key", {{"prefix", form}, {"expires_at", form}}}, {"projects", {{{"id", form}}}}}
                      .dump()}};
        }
        return LoopbackReply{.response = {200, {}, job("completed", form).dump()}};
      }};
  const std::vector<std::vector<std::string>> commands = {
      {"auth", "test", "--verbose"},
      {"jobs", "show", id, "--json"},
      {"jobs", "watch", id, "--verbose"},
      {"jobs", "list"},
      {"jobs", "download", id, "--output-dir", (dir_ / "m").string()}};
  SuiteCount count("rel-S6 a service that echoes the key");
  for (const std::string& form : key_forms()) {
    for (size_t place = 0; place < places.size(); ++place) {
      instead_ = [&](const HttpRequest& request) { return places[place](form, request); };
      for (const std::vector<std::string>& command : commands) {
        const ProcessResult result = run(command);
        const std::string where = command[0] + " " + command[1] + ", place " + std::to_string(place) + ", form " + form;
        EXPECT_EQ(result.signal, 0) << where;
        EXPECT_TRUE(count.add(!result.timed_out && is_without_canary(result.out + result.err)))
            << where << "\n"
            << result.out << result.err;
      }
    }
  }
  EXPECT_GE(count.cases(), 150);
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(dir_.path())) {
    EXPECT_TRUE(is_without_canary(entry.path().string())) << entry.path();
    EXPECT_TRUE(!entry.is_regular_file() || is_without_canary(read_file(entry.path()))) << entry.path();
  }
}

TEST_F(JobsServiceTest, TheKeyIsNotInTheProcessListAndNoProcessInheritsIt) {
  service_.looks_until_end = 1000;
  ProcessOptions to_file = options();
  to_file.stdout_to = dir_.write("out.txt", "");
  Process process(train_words("a"), to_file);
  ASSERT_TRUE(comes_to_hold(dir_ / "out.txt", "pending"));
  const fs::path own = "/proc/" + std::to_string(process.id());
  std::ifstream stream(own / "cmdline");
  const std::string cmdline{std::istreambuf_iterator<char>(stream), {}};
  EXPECT_THAT(cmdline, HasSubstr("train"));
  EXPECT_TRUE(is_without_canary(cmdline));
  std::ifstream children(own / "task" / std::to_string(process.id()) / "children");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(children), {}), "");
  process.send(SIGKILL);
}

}  // namespace
}  // namespace gemma_sft
