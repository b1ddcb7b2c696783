// The real transport against a server of raw bytes on this machine.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "tests/trainer/tunix/scripted_service.h"
#include "trainer/tunix/http_transport.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;

// Answers each connection with the next of the given texts and keeps what was asked.
class RawServer {
 public:
  explicit RawServer(std::vector<std::string> answers, double hold_seconds = 0)
      : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    listen(listener_, 8);
    socklen_t size = sizeof address;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, answers = std::move(answers), hold_seconds] {
      for (const std::string& answer : answers) {
        const int connection = accept(listener_, nullptr, nullptr);
        if (connection < 0) return;
        std::string request;
        char buffer[4096];
        while (request.find("\r\n\r\n") == std::string::npos) {
          const ssize_t count = recv(connection, buffer, sizeof buffer, 0);
          if (count <= 0) break;
          request.append(buffer, static_cast<size_t>(count));
        }
        requests.push_back(request);
        send(connection, answer.data(), answer.size(), MSG_NOSIGNAL);
        if (hold_seconds > 0) std::this_thread::sleep_for(std::chrono::duration<double>(hold_seconds));
        shutdown(connection, SHUT_RDWR);
        close(connection);
      }
    });
  }
  ~RawServer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/v1"; }

  std::vector<std::string> requests;  // read them when all answers were given

 private:
  int listener_;
  int port_ = 0;
  std::thread thread_;
};

HttpRequest get(const RawServer& server, double seconds = 5) {
  HttpRequest request;
  request.url = server.url() + "/x";
  request.seconds = seconds;
  return request;
}

TransportFailure::Kind failure_of(HttpTransport& transport, const HttpRequest& request) {
  try {
    transport.send(request);
  } catch (const TransportFailure& failure) {
    return failure.kind;
  }
  ADD_FAILURE() << "nothing was thrown";
  return TransportFailure::Kind::kInterrupted;
}

TEST(CurlTransport, GivesStatusHeadersAndBodyAndFollowsNoRedirect) {
  RawServer server(
      {"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nX-Two: a b \r\nContent-Length: 2\r\n\r\nhi"});
  const auto transport = make_curl_transport({});
  const HttpResponse response = transport->send(get(server));
  EXPECT_EQ(response.status, 302);
  EXPECT_EQ(response.body, "hi");
  EXPECT_EQ(response.find_header("x-two"), "a b");
}

TEST(CurlTransport, AnAnswerThatEndsEarlyIsTooLongOrTooSlowIsAFailure) {
  const auto transport = make_curl_transport({});
  {
    RawServer server({"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"});
    EXPECT_EQ(failure_of(*transport, get(server)), TransportFailure::Kind::kLost);
  }
  {
    RawServer server({"HTTP/1.1 200 OK\r\n\r\n" + std::string(5000, 'x')});
    HttpRequest request = get(server);
    request.max_body_bytes = 1000;
    EXPECT_EQ(failure_of(*transport, request), TransportFailure::Kind::kTooLarge);
  }
  {
    RawServer server({"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"}, 1.5);
    const double start = real_clock().now();
    EXPECT_EQ(failure_of(*transport, get(server, 0.3)), TransportFailure::Kind::kLost);
    EXPECT_LT(real_clock().now() - start, 1.3);
  }
  HttpRequest nobody;
  nobody.url = "http://127.0.0.1:1/";
  EXPECT_EQ(failure_of(*transport, nobody), TransportFailure::Kind::kNotSent);
}

TEST(CurlTransport, TheClientSendsItsKeyAndContractAndSurvivesABadGateway) {
  RawServer server({"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 6\r\n\r\n<html>",
                    "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"ok\":true}"});
  const auto transport = make_curl_transport({});
  FakeClock clock;
  HttpJobClientOptions options;
  options.base_url = server.url();
  options.key = "tunix_sk_dev_0123456789";
  HttpJobClient(*transport, clock, options).auth_test();
  ASSERT_EQ(server.requests.size(), 2u);
  EXPECT_THAT(server.requests[1], testing::StartsWith("GET /v1/auth/test HTTP/1.1\r\n"));
  EXPECT_THAT(server.requests[1], HasSubstr("Authorization: Bearer tunix_sk_dev_0123456789\r\n"));
  EXPECT_THAT(server.requests[1], HasSubstr("Tunix-Contract: 1\r\n"));
}

}  // namespace
}  // namespace gemma_sft
