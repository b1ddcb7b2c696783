// The client over real sockets: where the key goes, which certificates are accepted, and what slow or lying servers do
// to it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "tests/testing/temp_dir.h"
#include "tests/trainer/tunix/loopback_server.h"
#include "tests/trainer/tunix/scripted_service.h"
#include "trainer/tunix/download_job.h"
#include "trainer/tunix/job_spec.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kKey = "tunix_sk_dev_Canary0123456789";
const std::string kJob = "job_abc123xyz";

LoopbackReply reply(int status, const std::string& body,
                    std::vector<std::pair<std::string, std::string>> headers = {}) {
  return {.response = {status, std::move(headers), body}};
}

const std::string kJobBody = R"({"id":"job_abc123xyz","state":"running"})";

struct Caller {
  explicit Caller(const std::string& base_url, double retry_seconds = 0, CurlOptions transport_options = {})
      : transport(make_curl_transport(transport_options)) {
    HttpJobClientOptions options;
    options.base_url = base_url;
    options.key = kKey;
    options.retry_seconds = retry_seconds;
    client = std::make_unique<HttpJobClient>(*transport, real_clock(), options);
  }
  std::unique_ptr<HttpTransport> transport;
  std::unique_ptr<HttpJobClient> client;
};

template <typename Act>
std::string message_of(const Act& act) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), Not(HasSubstr("Canary")));
    return error.what();
  }
  return "";
}

bool holds_key(const HttpRequest& request) {
  std::string all = request.url + request.body;
  for (const auto& [name, value] : request.headers) all += name + value;
  return all.find("Canary") != std::string::npos;
}

class Memory : public ArtifactSink {
 public:
  uint64_t size() const override { return bytes.size(); }
  void restart() override { bytes.clear(); }
  void append(std::string_view more) override { bytes += more; }
  std::string bytes;
};

// rel-S7: every redirect, to every kind of place, of every kind of call.
TEST(Redirects, AreFollowedWhereTheyMayBeAndTheKeyStaysAtHome) {
  const std::string file = "the bytes of a file";
  const Artifact artifact{
      .path = "final_model/x", .kind = "final_model", .size = file.size(), .sha256 = sha256_hex(file)};
  const TlsCertificate certificate = make_certificate({});
  for (const int status : {301, 302, 303, 307, 308}) {
    for (const std::string& where : {std::string("other port"), std::string("other name"), std::string("other scheme"),
                                     std::string("loop"), std::string("same server")}) {
      LoopbackServer other([&](const HttpRequest&) { return reply(200, file); });
      LoopbackServer tls([&](const HttpRequest&) { return reply(200, file); }, &certificate);
      std::string location;
      LoopbackServer home([&](const HttpRequest& request) {
        if (request.url == "/v1/landed") return reply(200, request.url == "/v1/landed" ? kJobBody : "");
        if (request.url == "/v1/file") return reply(200, file);
        return reply(status, "", {{"Location", location}});
      });
      if (where == "other port") location = other.origin() + "/v1/landed";
      if (where == "other name") location = "http://localhost:" + std::to_string(home.port()) + "/v1/landed";
      if (where == "other scheme") location = tls.origin() + "/v1/landed";
      if (where == "loop") location = "/v1/again";
      if (where == "same server") location = "/v1/landed";
      const std::string script = std::to_string(status) + " to " + where;
      Caller caller(home.url());

      const std::string get = message_of([&] { caller.client->status(kJob); });
      EXPECT_EQ(get.empty(), where == "same server") << script << get;
      if (where != "loop" && where != "same server") {  // both servers are named
        EXPECT_THAT(get, HasSubstr(home.origin())) << script;
        EXPECT_THAT(get, HasSubstr(location.substr(0, location.find("/v1")))) << script;
      }
      const size_t before = home.requests().size();
      EXPECT_LE(before, 6u) << script;
      EXPECT_NE(message_of([&] { caller.client->submit(small_job(), Attempt::kFirst); }), "") << script;
      EXPECT_NE(message_of([&] { caller.client->cancel(kJob); }), "") << script;
      EXPECT_EQ(home.requests().size(), before + 2) << script << ": a POST was sent again";
      EXPECT_EQ(other.requests().size() + tls.requests().size(), 0u) << script;

      if (where == "same server") location = "/v1/file";
      Memory sink;
      const std::string download = message_of([&] { caller.client->download(kJob, artifact, sink); });
      const bool may = where == "other port" || where == "same server";
      EXPECT_EQ(download.empty(), may) << script << download;
      EXPECT_EQ(sink.bytes, may ? file : "") << script;
      EXPECT_EQ(other.requests().size(), where == "other port" ? 1u : 0u) << script;
      for (const HttpRequest& request : other.requests()) EXPECT_FALSE(holds_key(request)) << script;
      for (const HttpRequest& request : tls.requests()) EXPECT_FALSE(holds_key(request)) << script;
    }
  }
}

TEST(Tls, CertificatesThatAreNotRightAreRefusedAtOnceAndTheServerSeesNothing) {
  const TempDir dir;
  const TlsCertificate authority = make_certificate({.name = "authority", .is_authority = true});
  const TlsCertificate stranger = make_certificate({.name = "stranger", .is_authority = true});
  CurlOptions trusting;
  trusting.ca_file = dir.write("ca.pem", authority.certificate);
  const auto attempt = [&](const CertificateRequest& request, const CurlOptions& options, const char* what) {
    const TlsCertificate certificate = make_certificate(request);
    LoopbackServer server([](const HttpRequest&) { return reply(200, kJobBody); }, &certificate);
    const double start = real_clock().now();
    const std::string message = message_of([&] { Caller(server.url(), 60, options).client->status(kJob); });
    EXPECT_LT(real_clock().now() - start, 20) << what;
    if (!message.empty()) {
      EXPECT_TRUE(server.requests().empty()) << what;
      EXPECT_THAT(message, HasSubstr(server.origin())) << what;
      EXPECT_THAT(message, HasSubstr("certificate is not accepted")) << what;
      EXPECT_THAT(message, HasSubstr("TUNIX_CA_FILE")) << what;
    }
    return message.empty();
  };
  EXPECT_TRUE(attempt({.issuer = &authority}, trusting, "right"));
  EXPECT_FALSE(attempt({}, trusting, "self-signed"));
  EXPECT_FALSE(attempt({.issuer = &authority}, {}, "an authority that the system does not know"));
  EXPECT_FALSE(attempt({.issuer = &stranger}, trusting, "another authority"));
  EXPECT_FALSE(attempt({.first_day = -10, .last_day = -1, .issuer = &authority}, trusting, "expired"));
  EXPECT_FALSE(attempt({.first_day = 1, .last_day = 10, .issuer = &authority}, trusting, "not valid yet"));
  EXPECT_FALSE(attempt({.name = "example.org", .issuer = &authority}, trusting, "another host's"));
  EXPECT_FALSE(attempt({.name = "127.0.0.2", .issuer = &authority}, trusting, "another address'"));
}

TEST(Tls, APlainServerIsNotSpokenToOverTls) {
  LoopbackServer server([](const HttpRequest&) { return reply(200, kJobBody); });
  EXPECT_NE(
      message_of([&] { Caller("https://127.0.0.1:" + std::to_string(server.port()) + "/v1").client->status(kJob); }),
      "");
  EXPECT_TRUE(server.requests().empty());
}

TEST(Proxies, AreNotAskedAboutThisMachine) {
  LoopbackServer proxy([](const HttpRequest&) { return reply(200, kJobBody); });
  LoopbackServer server([](const HttpRequest&) { return reply(200, kJobBody); });
  for (const char* name : {"http_proxy", "all_proxy", "ALL_PROXY"}) setenv(name, proxy.origin().c_str(), 1);
  EXPECT_EQ(message_of([&] { Caller(server.url()).client->status(kJob); }), "");
  for (const char* name : {"http_proxy", "all_proxy", "ALL_PROXY"}) unsetenv(name);
  EXPECT_TRUE(proxy.requests().empty());
}

// rel-H4: what a broken or hostile server can answer with. Each ends in an error, and in time.
TEST(BrokenServers, EndInAnErrorWithinTheDeadline) {
  const auto raw = [](std::string text) { return LoopbackReply{.raw = std::move(text)}; };
  const std::string ok = "HTTP/1.1 200 OK\r\n";
  const std::vector<std::pair<std::string, LoopbackReply>> replies = {
      {"nothing", {.hangs_up = true}},
      {"no HTTP", raw("hello\r\n\r\n")},
      {"half a header", raw(ok + "Content-Le")},
      {"a header of 2 MB", raw(ok + "X: " + std::string(2'000'000, 'x') + "\r\n\r\n{}")},
      {"10,000 headers", raw([&] {
         std::string text = ok;
         for (int i = 0; i < 10'000; ++i) text += "X-" + std::to_string(i) + ": y\r\n";
         return text + "\r\n" + kJobBody;
       }())},
      {"a body that is announced longer", raw(ok + "Content-Length: 500\r\n\r\n" + kJobBody)},
      {"a body that is announced shorter", raw(ok + "Content-Length: 5\r\n\r\n" + kJobBody)},
      {"a negative length", raw(ok + "Content-Length: -5\r\n\r\n" + kJobBody)},
      {"a broken chunk", raw(ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + kJobBody)},
      {"a body without an end", raw(ok + "\r\n{\"id\": \"" + std::string(3'000'000, 'x'))},
      {"compressed", reply(200, "\x1f\x8b\x08 not what it says", {{"Content-Encoding", "gzip"}})},
      {"a byte every 50 ms", {.response = {200, {}, kJobBody + std::string(10'000, ' ')}, .byte_seconds = 0.05}},
      {"silence", {.response = {200, {}, kJobBody}, .delay_seconds = 4}}};
  for (const auto& [name, given] : replies) {
    LoopbackServer server([&answer = given](const HttpRequest&) { return answer; });
    const double start = real_clock().now();
    const std::string message = message_of([&] { Caller(server.url(), 1).client->status(kJob); });
    EXPECT_LT(real_clock().now() - start, 2.9) << name;
    EXPECT_NE(message, "") << name;
    EXPECT_LT(message.size(), 3000u) << name;
    EXPECT_EQ(message.find("Out of memory"), std::string::npos) << name;
  }
}

TEST(BrokenServers, ADownloadThatDripsIsGivenUp) {
  LoopbackServer server([](const HttpRequest&) {
    return LoopbackReply{.response = {200, {}, std::string(100'000, 'x')}, .byte_seconds = 0.01};
  });
  CurlOptions options;
  options.stall_seconds = 1;
  Memory sink;
  const Artifact artifact{
      .path = "final_model/x", .kind = "final_model", .size = 100'000, .sha256 = std::string(64, 'a')};
  const double start = real_clock().now();
  EXPECT_NE(message_of([&] { Caller(server.url(), 2, options).client->download(kJob, artifact, sink); }), "");
  EXPECT_LT(real_clock().now() - start, 10);
}

// The same service as in the tests without sockets, so that both say the same about the client.
TEST(Loopback, ARunGoesThroughTheRealTransport) {
  ScriptedService service;
  service.key = kKey;
  LoopbackServer server([&](const HttpRequest& request) { return LoopbackReply{.response = service.answer(request)}; });
  Caller caller(server.url(), 10);
  const TempDir dir;
  const std::string rows = std::string(500, 'r') + "\n";
  EXPECT_EQ(caller.client->auth_test().projects, std::vector<std::string>{"p"});
  const std::string dataset = caller.client->upload_dataset({.file = dir.write("rows.jsonl", rows),
                                                             .bytes = rows.size(),
                                                             .sha256 = sha256_hex(rows),
                                                             .rows = 1,
                                                             .dataset_key = "k",
                                                             .manifest_json = ""},
                                                            "p", "key");
  EXPECT_EQ(service.dataset(dataset), rows);
  const Job job = caller.client->submit(small_job(), Attempt::kFirst);
  while (!is_terminal(caller.client->status(job.id).state)) {
  }
  const DownloadResult result = download_job(*caller.client, job.id, dir / "m", real_file_system());
  for (const auto& [path, bytes] : service.files) EXPECT_EQ(read_file(result.folder / path), bytes);
}

}  // namespace
}  // namespace gemma_sft
