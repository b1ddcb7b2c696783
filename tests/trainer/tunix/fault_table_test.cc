// Every call of the client, with every fault at every request that it makes: once, and from then on. What must come of
// it stands in `outcome_of`, by fault; a fault without an entry there is an error of this test. Time is made up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "tests/testing/suite_count.h"
#include "tests/testing/temp_dir.h"
#include "tests/trainer/tunix/scripted_service.h"
#include "trainer/tunix/download_job.h"
#include "trainer/tunix/follow_job.h"
#include "trainer/tunix/job_spec.h"

namespace gemma_sft {
namespace {

using Kind = ServiceFault::Kind;

const std::string kKey = "tunix_sk_dev_Canary0123456789";
constexpr double kDeadline = 300;

enum class Outcome {
  kPasses,      // tried again; once the fault is over the call succeeds, otherwise it ends at its deadline
  kRefused,     // no second attempt
  kNotThere,    // 404: asked about three times more where a job may appear late, else refused
  kEnded,       // 409: of a job that has ended the end is told, of a part that is there the next one is sent
  kWrongRange,  // 416: the file or the part begins anew
};

struct NamedFault {
  std::string name;
  ServiceFault fault;
  Outcome outcome;
  ErrorKind kind = ErrorKind::kApi;  // of the refusal
  bool to_other_https = false;       // where a file may lie
};

ServiceFault status_fault(int status, std::vector<std::pair<std::string, std::string>> headers = {}) {
  // The body says what the service got: the key in several forms, and a line for the terminal.
  return {.kind = Kind::kStatusBefore,
          .status = status,
          .body = R"({"error":{"code":"x","message":"you sent )" + kKey + R"( \u001b[2J Canary%30123456789"}})",
          .headers = std::move(headers)};
}

ServiceFault body_fault(const std::string& body) { return {.kind = Kind::kStatusBefore, .status = 200, .body = body}; }

std::vector<NamedFault> all_faults() {
  std::vector<NamedFault> faults;
  for (const int status : {408, 429, 500, 502, 503, 504}) {
    faults.push_back({"status " + std::to_string(status), status_fault(status), Outcome::kPasses});
  }
  for (const char* delay :
       {"7", "0", "-5", "1000000000", "99999999999999999999", "soon", "", "Tue, 14 Nov 2023 22:13:30 GMT",
        "Tue, 14 Nov 2000 22:13:30 GMT", "Tue, 14 Nov 2099 22:13:30 GMT"}) {
    for (const int status : {429, 503}) {
      faults.push_back({std::to_string(status) + " Retry-After: " + delay,
                        status_fault(status, {{"retry-after", delay}}), Outcome::kPasses});
    }
  }
  for (const int status : {300, 304, 400, 405, 406, 410, 411, 412, 413, 414, 415, 417, 418, 421, 422,
                           423, 424, 425, 426, 428, 431, 451, 501, 505, 506, 507, 508, 510, 511, 599}) {
    faults.push_back({"status " + std::to_string(status), status_fault(status), Outcome::kRefused});
  }
  for (const int status : {401, 403}) {
    faults.push_back(
        {"status " + std::to_string(status), status_fault(status), Outcome::kRefused, ErrorKind::kAuthentication});
  }
  faults.push_back({"status 402", status_fault(402), Outcome::kRefused, ErrorKind::kQuota});
  ServiceFault quota = status_fault(429);
  quota.body = R"({"error":{"code":"quota_exceeded","message":"TPU quota exceeded"}})";
  faults.push_back({"quota", quota, Outcome::kRefused, ErrorKind::kQuota});
  quota.body = "TPU quota exceeded";
  faults.push_back({"quota in plain words", quota, Outcome::kRefused, ErrorKind::kQuota});
  faults.push_back({"status 404", status_fault(404), Outcome::kNotThere});
  faults.push_back({"status 409", status_fault(409), Outcome::kEnded});
  faults.push_back({"status 416", status_fault(416), Outcome::kWrongRange});
  for (const int status : {301, 302, 303, 307, 308}) {
    for (const char* location :
         {"", "http://jobs.example.org/v1/x", "ftp://jobs.example.org/", "https://a:b@c.example/",
          "https://evil.example.org/v1/x", "//evil.example.org/", "https://jobs.example.org:444/v1/x"}) {
      const std::string to = location;
      NamedFault fault{std::to_string(status) + " to " + to, status_fault(status, {{"location", to}}),
                       Outcome::kRefused};
      fault.to_other_https = to.find("evil") != std::string::npos || to.find(":444") != std::string::npos;
      faults.push_back(fault);
    }
  }
  faults.push_back({"no connection", {.kind = Kind::kNotSent}, Outcome::kPasses});
  faults.push_back({"lost before", {.kind = Kind::kLostBefore}, Outcome::kPasses});
  faults.push_back({"lost after", {.kind = Kind::kLostAfter}, Outcome::kPasses});
  faults.push_back({"no answer in time", {.kind = Kind::kTimeout}, Outcome::kPasses});
  faults.push_back({"too large", {.kind = Kind::kTooLarge}, Outcome::kPasses});
  faults.push_back({"untrusted", {.kind = Kind::kUntrusted}, Outcome::kRefused});
  faults.push_back({"garbage after", {.kind = Kind::kGarbageAfter}, Outcome::kPasses});
  faults.push_back({"503 after", {.kind = Kind::kStatusAfter, .status = 503}, Outcome::kPasses});
  faults.push_back({"504 after", {.kind = Kind::kStatusAfter, .status = 504}, Outcome::kPasses});
  const std::string deep = std::string(100'000, '[');
  for (const std::string& body :
       {std::string("<html>504</html>"), std::string("{\"id\": "), std::string("null"), std::string("[]"),
        std::string("{}"), std::string("7"), std::string(), deep, std::string("\x1f\x8b\x08"),
        std::string("\xff\xfe{}"), std::string(R"({"id":7,"state":7,"ok":"yes","data":{},"available":"x","hours":1})"),
        std::string(R"({"id":"job_other123456","state":"dancing","data":[{"path":7}],"ok":null,"available":-1})")}) {
    faults.push_back({"200 with " + body.substr(0, 40), body_fault(body), Outcome::kPasses});
  }
  return faults;
}

struct Operation {
  std::string name;
  std::function<void(HttpJobClient&, const TempDir&, FakeClock&)> run;
  int deadlines = 1;  // of calls inside it that may come after one another
};

const std::string kJob = "job_abc123450";  // the service's first
const std::string kRows =
    "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n{\"id\":4}\n{\"id\":5}\n{\"id\":6}\n{\"id\":7}\n{\"id\":8}\n";

std::vector<Operation> all_operations() {
  return {
      {"auth test", [](auto& client, auto&, auto&) { client.auth_test(); }},
      {"quota", [](auto& client, auto&, auto&) { client.quota("p", "tpu-v3-8", "us-central1"); }},
      {"estimate", [](auto& client, auto&, auto&) { client.estimate_cost(small_job("e")); }},
      {"upload",
       [](auto& client, const TempDir& dir, auto&) {
         client.upload_dataset({.file = dir.write("rows.jsonl", kRows),
                                .bytes = kRows.size(),
                                .sha256 = sha256_hex(kRows),
                                .rows = 8,
                                .dataset_key = "k",
                                .manifest_json = ""},
                               "p", "key-dataset");
       },
       2},
      {"submit", [](auto& client, auto&, auto&) { client.submit(small_job("second"), Attempt::kFirst); }, 2},
      {"submit again", [](auto& client, auto&, auto&) { client.submit(small_job("first"), Attempt::kRepeated); }, 2},
      {"poll", [](auto& client, auto&, auto&) { client.status(kJob); }},
      {"list",
       [](auto& client, auto&, auto&) {
         client.list({.project_id = "p", .state = {}, .experiment = {}, .limit = 20, .after = {}});
       }},
      {"events", [](auto& client, auto&, auto&) { client.events(kJob, 0); }},
      {"watch",
       [](auto& client, auto&, FakeClock& clock) {
         follow_job(client, kJob, clock, {.first_delay = 2, .longest_delay = 30, .events = true},
                    {.on_change = [](const Job&) {}, .on_event = [](const JobEvent&) {}});
       },
       2},
      {"cancel", [](auto& client, auto&, auto&) { client.cancel(kJob); }},
      {"download",
       [](auto& client, const TempDir& dir, auto&) { download_job(client, kJob, dir / "m", real_file_system()); }},
  };
}

// One request that a call makes.
struct Asked {
  HttpMethod method;
  bool is_file = false, is_stream = false, is_list_of_files = false, is_job = false, is_events = false,
       is_cancel = false, is_submission = false;
};
Asked asked_of(const HttpRequest& request) {
  const std::string path = request.url.substr(request.url.find("/v1") + 3);
  const std::string plain = path.substr(0, path.find('?'));
  return {.method = request.method,
          .is_file = plain.find("/artifacts/") != std::string::npos,
          .is_stream = header_of(request, "Accept") == "text/event-stream",
          .is_list_of_files = plain.ends_with("/artifacts"),
          .is_job = plain == "/jobs/" + kJob,
          .is_events = plain.ends_with("/events"),
          .is_cancel = plain.ends_with("/cancel"),
          .is_submission = plain == "/jobs" && request.method == HttpMethod::kPost};
}

// What one fault at one request must lead to.
enum class Once { kSucceeds, kFails };
Once once_of(const NamedFault& fault, const Asked& asked) {
  if (asked.is_stream) {  // a stream is one of two ways, and pages are the other
    const bool about_key = fault.kind == ErrorKind::kAuthentication;
    const bool leads_away = fault.name.find(" to ") != std::string::npos;
    return about_key || leads_away || fault.fault.kind == Kind::kUntrusted ? Once::kFails : Once::kSucceeds;
  }
  if (asked.is_events && fault.fault.status == 501) return Once::kSucceeds;
  switch (fault.outcome) {
    case Outcome::kPasses: return Once::kSucceeds;
    case Outcome::kRefused: return Once::kFails;
    case Outcome::kNotThere:
      return asked.is_job || asked.is_list_of_files || asked.is_events ? Once::kSucceeds : Once::kFails;
    case Outcome::kEnded: return asked.is_cancel || asked.method == HttpMethod::kPut ? Once::kSucceeds : Once::kFails;
    case Outcome::kWrongRange:
      return asked.is_file || asked.method == HttpMethod::kPut ? Once::kSucceeds : Once::kFails;
  }
  ADD_FAILURE() << fault.name << " has no defined outcome";
  return Once::kFails;
}

class FaultTable : public ::testing::Test {
 protected:
  struct Ending {
    bool succeeded = false;
    ErrorKind kind = ErrorKind::kInternal;
    std::string message;
    size_t requests = 0;
    double seconds = 0;
  };

  void SetUp() override { prepare(); }

  void prepare() {
    service_ = ScriptedService();
    service_.looks_until_end = 1000;  // running; `watch` alone needs an end
    HttpJobClientOptions options;
    options.base_url = "https://jobs.example.org/v1";
    options.key = kKey;
    FakeClock clock;
    HttpJobClient(service_, clock, options).submit(small_job("first"), Attempt::kFirst);
    service_.requests.clear();
  }

  Ending run(const Operation& operation) {
    const TempDir dir(memory_folder());
    FakeClock clock;
    service_.takes = [&](double seconds) { clock.sleep(seconds); };
    if (operation.name == "watch") service_.looks_until_end = 4;
    HttpJobClientOptions options;
    options.base_url = "https://jobs.example.org/v1";
    options.key = kKey;
    options.retry_seconds = kDeadline;
    HttpJobClient client(service_, clock, options);
    Ending ending;
    try {
      operation.run(client, dir, clock);
      ending.succeeded = true;
    } catch (const Error& error) {
      ending.kind = error.kind();
      ending.message = error.what();
    }
    ending.requests = service_.requests.size();
    ending.seconds = clock.now();
    return ending;
  }

  static int failures() { return testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count(); }

  // What one script came to, against the table.
  static void check(const Ending& ending, const Ending& usual, const Operation& operation, const Asked& asked,
                    const NamedFault& fault, bool forever, size_t at, const std::string& script) {
    const Once once = once_of(fault, asked);
    const double allowed = usual.seconds + kDeadline * operation.deadlines + 1;
    EXPECT_LE(ending.seconds, allowed) << script;
    if (!forever && once == Once::kSucceeds) {
      EXPECT_TRUE(ending.succeeded) << script << ": " << ending.message;
      return;
    }
    if (ending.succeeded) {  // for ever, and yet done: only where the request is not needed
      EXPECT_TRUE(forever && (asked.is_stream || asked.is_events || asked.is_cancel)) << script;
      return;
    }
    if (once == Once::kFails && !asked.is_stream) {
      EXPECT_EQ(ending.kind, fault.kind) << script << ": " << ending.message;
      if (fault.outcome == Outcome::kRefused) {
        EXPECT_EQ(ending.requests, at + 1) << script << ": " << ending.message;
      }
    }
    EXPECT_THAT(ending.kind,
                testing::AnyOf(ErrorKind::kApi, ErrorKind::kAuthentication, ErrorKind::kQuota, ErrorKind::kIo))
        << script << ": " << ending.message;
    EXPECT_LT(ending.message.size(), 4096u) << script;
    EXPECT_THAT(ending.message, testing::Not(testing::HasSubstr("anary"))) << script;
    EXPECT_THAT(ending.message, testing::Not(testing::HasSubstr("\x1b"))) << script;
    EXPECT_FALSE(ending.message.empty()) << script;
  }

  ScriptedService service_;
};

TEST_F(FaultTable, EveryFaultAtEveryRequestOfEveryCallHasItsOutcome) {
  const std::vector<NamedFault> faults = all_faults();
  SuiteCount count("H1 every fault at every request of every call, H1 to H4, H6 and H7");
  for (const Operation& operation : all_operations()) {
    prepare();
    const Ending usual = run(operation);
    ASSERT_TRUE(usual.succeeded) << operation.name << ": " << usual.message;
    std::vector<Asked> asked;
    for (const HttpRequest& request : service_.requests) {
      asked.push_back(asked_of(request));
      asked.back().is_events &= operation.name == "watch";  // which does without them
    }
    for (size_t at = 0; at < asked.size(); ++at) {
      for (const NamedFault& fault : faults) {
        const std::string script = operation.name + ", request " + std::to_string(at) + ": " + fault.name;
        if (asked[at].is_file && fault.to_other_https) continue;  // allowed; see loopback_test.cc
        for (const bool forever : {false, true}) {
          prepare();
          service_.faults.assign(at, {});
          if (forever) {
            service_.every_fault = fault.fault;
          } else {
            service_.faults.push_back(fault.fault);
          }
          const int before = failures();
          check(run(operation), usual, operation, asked[at], fault, forever, at, script);
          count.add(failures() == before);
        }
      }
    }
  }
  EXPECT_GE(count.cases(), 5000);
}

}  // namespace
}  // namespace gemma_sft
