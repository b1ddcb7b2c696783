#include "trainer/tunix/http_job_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/trainer/tunix/scripted_service.h"
#include "trainer/tunix/job_spec.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;
using testing::Not;
using Kind = ServiceFault::Kind;

const std::string kKey = "tunix_sk_dev_Canary0123456789";

class HttpJobClientTest : public ::testing::Test {
 protected:
  HttpJobClient make(double retry_seconds = 100, const std::string& url = "https://jobs.example.org/v1") {
    HttpJobClientOptions options;
    options.base_url = url;
    options.key = kKey;
    options.retry_seconds = retry_seconds;
    return {service_, clock_, options};
  }
  template <typename Act>
  std::string message_of(ErrorKind kind, Act act) {
    try {
      act();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      EXPECT_THAT(error.what(), Not(HasSubstr("Canary")));
      return error.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return "";
  }
  static HttpResponse problem(int status, const std::string& code, const std::string& message) {
    return ScriptedService::json(status, {{"error", {{"code", code}, {"message", message}, {"request_id", "req_1"}}}});
  }

  ScriptedService service_;
  FakeClock clock_;
};

TEST_F(HttpJobClientTest, TheGuidesErrorsAreItsWordsWithARemedyAndAreNotTriedAgain) {
  service_.answers["GET /auth/test"] = problem(401, "invalid_api_key", "Invalid API key");
  HttpJobClient client = make();
  const std::string refused = message_of(ErrorKind::kAuthentication, [&] { client.auth_test(); });
  EXPECT_THAT(refused, testing::StartsWith("TunixAPIError: 401 Unauthorized - Invalid API key\n"));
  EXPECT_THAT(refused, HasSubstr("curl -H \"Authorization: Bearer $TUNIX_API_KEY\""));
  EXPECT_EQ(service_.requests.size(), 1u);

  service_.answers["POST /jobs"] = problem(429, "quota_exceeded", "TPU quota exceeded");
  const std::string quota = message_of(ErrorKind::kQuota, [&] { client.submit(small_job(), Attempt::kFirst); });
  EXPECT_THAT(quota, testing::StartsWith("TunixAPIError: 429 Too Many Requests - TPU quota exceeded\n"));
  EXPECT_THAT(quota, HasSubstr("https://console.cloud.google.com/iam-admin/quotas"));
  EXPECT_EQ(service_.requests.size(), 2u);
}

TEST_F(HttpJobClientTest, AnEchoedKeyAndControlCharactersDoNotReachTheMessage) {
  service_.answers["GET /auth/test"] = problem(400, "bad", "you sent " + kKey + " and \x1b[2J Canary0123 too");
  HttpJobClient client = make();
  const std::string text = message_of(ErrorKind::kApi, [&] { client.auth_test(); });
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_THAT(text, HasSubstr("you sent ***"));
}

TEST_F(HttpJobClientTest, WhatPassesIsTriedAgainUntilTheTimeIsOver) {
  service_.answers["GET /auth/test"] = ScriptedService::json(200, {{"ok", true}});
  service_.faults = {{.kind = Kind::kNotSent},
                     {.kind = Kind::kStatusBefore, .status = 503},
                     {.kind = Kind::kStatusBefore, .status = 429, .headers = {{"retry-after", "7"}}},
                     {.kind = Kind::kGarbageAfter},
                     {.kind = Kind::kLostAfter}};
  HttpJobClient client = make();
  client.auth_test();
  EXPECT_EQ(service_.requests.size(), 6u);
  EXPECT_EQ(clock_.slept().at(2), 7);

  for (int i = 0; i < 1000; ++i) service_.faults.push_back({.kind = Kind::kStatusBefore, .status = 502});
  const double start = clock_.now();
  message_of(ErrorKind::kApi, [&] { client.auth_test(); });
  EXPECT_GE(clock_.now() - start, 100);
  EXPECT_LE(clock_.now() - start, 101);
}

TEST_F(HttpJobClientTest, RetryAfterMayBeADateAndNonsenseIsIgnored) {
  EXPECT_EQ(parse_retry_after("Tue, 14 Nov 2023 22:13:30 GMT", 1'700'000'000), 10);
  EXPECT_EQ(parse_retry_after("12", 0), 12);
  for (const char* text : {"", "-5", "soon", "1e9", "Tue, 14 Nov 2023"}) {
    EXPECT_EQ(parse_retry_after(text, 0), std::nullopt) << text;
  }
}

TEST_F(HttpJobClientTest, TheKeyGoesToItsOwnServerAlone) {
  service_.answers["GET /auth/test"] = {302, {{"location", "https://evil.example.org/v1/auth/test"}}, ""};
  HttpJobClient client = make();
  const std::string text = message_of(ErrorKind::kApi, [&] { client.auth_test(); });
  EXPECT_THAT(text, HasSubstr("https://jobs.example.org"));
  EXPECT_THAT(text, HasSubstr("https://evil.example.org"));
  EXPECT_EQ(service_.requests.size(), 1u);

  service_.answers["POST /jobs"] = {307, {{"location", "/v1/elsewhere"}}, ""};
  message_of(ErrorKind::kApi, [&] { client.submit(small_job(), Attempt::kFirst); });
  EXPECT_EQ(service_.requests.size(), 2u);

  message_of(ErrorKind::kUsage, [&] { make(1, "http://jobs.example.org/v1"); });
  message_of(ErrorKind::kUsage, [&] { make(1, "https://name:word@jobs.example.org/v1"); });
  make(1, "http://127.0.0.1:8080/v1");
}

TEST_F(HttpJobClientTest, AJobThatIsNotThereIsAskedForThreeTimesMore) {
  HttpJobClient client = make(1000);
  const std::string text = message_of(ErrorKind::kApi, [&] { client.status("job_gone12345"); });
  EXPECT_EQ(service_.requests.size(), 4u);
  EXPECT_THAT(text, HasSubstr("does not know the job job_gone12345; its record in the run folder is kept"));
}

// Whatever is lost on the way of a submission, and whether or not the service replays a known key: one job.
TEST_F(HttpJobClientTest, AThousandScriptedSubmissionsMakeOneJobEach) {
  std::mt19937_64 random(7);
  for (int script = 0; script < 1000; ++script) {
    service_ = ScriptedService();
    service_.honours_keys = script % 2 == 0;
    const Kind kinds[] = {Kind::kNone,         Kind::kNotSent,     Kind::kLostBefore,  Kind::kLostAfter,
                          Kind::kStatusBefore, Kind::kStatusAfter, Kind::kGarbageAfter};
    const int statuses[] = {408, 500, 502, 503, 504};
    for (size_t i = 0; i < 1 + random() % 5; ++i) {
      service_.faults.push_back({.kind = kinds[random() % 7], .status = statuses[random() % 5]});
    }
    HttpJobClient client = make(100'000);
    const Job first = client.submit(small_job(), Attempt::kFirst);
    const Job again = client.submit(small_job(), Attempt::kRepeated);  // the next process
    EXPECT_EQ(service_.jobs(), 1u) << script;
    EXPECT_EQ(first.id, again.id) << script;
  }
}

}  // namespace
}  // namespace gemma_sft
