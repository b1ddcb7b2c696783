// One HTTP exchange and nothing else: no redirects, no retries, no compression, bounded in time and bytes. libcurl
// stays in curl_transport.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gemma_sft {

enum class HttpMethod { kGet, kHead, kPost, kPut };

struct HttpRequest {
  HttpMethod method = HttpMethod::kGet;
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  uint64_t max_body_bytes = 1'000'000;  // of the response; more is a failure. A sink sees to it by itself
  double seconds = 60;                  // for the whole exchange; with a sink, of slowness
  int64_t least_bytes_per_second = 1;   // slower for a while is a failure
  // Gets the body of a 200 or 206 piece by piece, instead of HttpResponse::body; `begin` comes first and says with
  // false that the body is not wanted.
  struct Sink {
    std::function<bool(const struct HttpResponse& head)> begin;
    std::function<void(std::string_view bytes)> append;  // what it throws goes through send()
  };
  std::optional<Sink> sink;
};

struct HttpResponse {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;

  std::optional<std::string> find_header(std::string_view lower_case_name) const;
};

// No answer, or half of one.
struct TransportFailure {
  enum class Kind {
    kNotSent,      // no connection: the server has seen nothing
    kLost,         // sent, or perhaps sent; what the server did is not known
    kTooLarge,     // the answer exceeds max_body_bytes
    kUntrusted,    // TLS: the server's certificate is not accepted
    kInterrupted,  // a stop signal came
  };
  Kind kind = Kind::kLost;
  std::string message;  // without the address and the headers
};

class HttpTransport {
 public:
  virtual ~HttpTransport() = default;
  // Throws TransportFailure.
  virtual HttpResponse send(const HttpRequest& request) = 0;
};

struct CurlOptions {
  std::string ca_file;  // PEM; empty: the system's
  std::string user_agent = "gemma-sft";
  double connect_seconds = 15;
  double stall_seconds = 60;  // slower than least_bytes_per_second for so long ends a transfer
  std::function<bool()> interrupted;
};
std::unique_ptr<HttpTransport> make_curl_transport(const CurlOptions& options);

// An address taken apart: "https", "api.tunix.ai", 443. nullopt: not an http or https address, or one with a name and
// password in it.
struct HttpOrigin {
  std::string scheme;
  std::string host;  // lower case; IPv6 with its brackets
  int port = 0;
  bool operator==(const HttpOrigin&) const = default;
  std::string text() const;  // "https://api.tunix.ai"
  bool is_loopback() const;  // localhost, 127.x.x.x, [::1]
};
std::optional<HttpOrigin> find_origin(std::string_view url);

// Text as a part of an address; bytes in `kept` stay what they are.
std::string percent_encoded(std::string_view text, std::string_view kept = "");

// The number that a header holds, and nothing else beside it.
std::optional<uint64_t> parse_header_number(std::string_view text);

// `location` as an address, where it is a path on `base`'s server.
std::string resolve_location(const std::string& base, const std::string& location);

}  // namespace gemma_sft
