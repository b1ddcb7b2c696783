// One call of the job service: what is sent where, which outcomes are tried again, what a refusal means. The key goes
// to the origin of base_url and nowhere else.
#pragma once

#include <functional>
#include <optional>
#include <random>
#include <string>

#include "trainer/tunix/clock.h"
#include "trainer/tunix/http_transport.h"
#include "trainer/tunix/retry.h"
#include "trainer/tunix/service_errors.h"
#include "trainer/tunix/service_text.h"

namespace gemma_sft {

inline constexpr double kCallSeconds = 60;  // that one request may take

struct HttpJobClientOptions {
  std::string base_url = "https://api.tunix.ai/v1";
  std::string key;
  std::string key_origin = "TUNIX_API_KEY";
  double retry_seconds = 300;  // how long a call is tried again
  uint64_t seed = 0;           // of the delays
  ServiceContext context = {};
};

// Throws Error(kUsage) unless it is https, or http to this machine, without a name or password in it. Gives it without
// a '/' at the end.
std::string require_base_url(const std::string& url);

// How one kind of call behaves.
struct ServiceCall {
  std::string what;  // "GET /jobs/job_1", for messages
  // Reads the body of a 2xx; throws Unreadable.
  std::function<void(const HttpResponse&)> accept = [](const HttpResponse&) {};
  bool leaves_home = false;  // may be redirected to another server, which does not get the key
  int confirm_404 = 0;       // how often a 404 is asked about again
  std::string job_id = {};
};

// Not thread-safe. Throws Error: kAuthentication, kQuota, kApi; and Interrupted.
class ServiceCaller {
 public:
  ServiceCaller(HttpTransport& transport, Clock& clock, HttpJobClientOptions options);

  HttpRequest make_request(HttpMethod method, const std::string& path) const;
  // The whole of a call: again and again until it is accepted, refused, or its time is over.
  HttpResponse call(const HttpRequest& request, const ServiceCall& call);

  // Its parts, for calls with another rhythm.
  HttpResponse send_once(HttpRequest request, const ServiceCall& call);  // throws TransportFailure, too
  Retry make_retry() { return {clock_, options_.retry_seconds, random_}; }
  bool passes(const HttpResponse& response) const;  // will it be better the next time?
  void require_passing(const TransportFailure& failure) const;
  std::optional<double> retry_after(const HttpResponse& response) const;
  [[noreturn]] void fail(const HttpResponse& response, const ServiceCall& call) const;
  [[noreturn]] void give_up(const std::string& problem, const Retry& retry, const ServiceCall& call) const;

  const ServiceText& text() const { return text_; }
  const HttpOrigin& origin() const { return origin_; }
  // For the remedy of a quota error.
  void set_smaller_accelerators(const std::string& list);

 private:
  HttpTransport& transport_;
  Clock& clock_;
  HttpJobClientOptions options_;
  HttpOrigin origin_;
  ServiceText text_;
  std::mt19937_64 random_;
};

}  // namespace gemma_sft
