#include "trainer/tunix/service_caller.h"

#include <fmt/format.h>

#include <algorithm>

#include "configs/error.h"
#include "trainer/tunix/job_client.h"
#include "trainer/tunix/service_json.h"

namespace gemma_sft {
namespace {

constexpr int kMostRedirects = 5;

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

}  // namespace

std::string require_base_url(const std::string& url) {
  const auto origin = find_origin(url);
  if (!origin || url.find_first_of("?#") != std::string::npos) {
    throw Error(ErrorKind::kUsage,
                "address of the job service: expected one such as https://api.tunix.ai/v1, without a name, a password "
                "or a query in it (--base-url, TUNIX_BASE_URL or tunix.api_base_url)");
  }
  if (origin->scheme == "http" && !origin->is_loopback()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{}: the key would be readable on the way; use https (http is for this machine only)",
                            origin->text()));
  }
  std::string result = url;
  while (result.ends_with('/')) result.pop_back();
  return result;
}

ServiceCaller::ServiceCaller(HttpTransport& transport, Clock& clock, HttpJobClientOptions options)
    : transport_(transport), clock_(clock), options_(std::move(options)), text_(options_.key), random_(options_.seed) {
  options_.base_url = require_base_url(options_.base_url);
  origin_ = *find_origin(options_.base_url);
  options_.context.base_url = options_.base_url;
  options_.context.key_origin = options_.key_origin;
  const bool printable =
      std::all_of(options_.key.begin(), options_.key.end(), [](char c) { return c > ' ' && c < 127; });
  if (options_.key.empty() || !printable) {
    throw Error(ErrorKind::kAuthentication,
                fmt::format("{}: expected a key without spaces or control characters, such as tunix_sk_...",
                            options_.key_origin));
  }
}

HttpRequest ServiceCaller::make_request(HttpMethod method, const std::string& path) const {
  HttpRequest request;
  request.method = method;
  request.url = options_.base_url + path;
  request.headers = {{"Tunix-Contract", "1"}};
  if (method != HttpMethod::kGet || path.find("/artifacts/") == std::string::npos) {
    request.headers.emplace_back("Accept", "application/json");
  }
  return request;
}

// Follows redirects as far as that is safe, and puts the key where it belongs.
HttpResponse ServiceCaller::send_once(HttpRequest request, const ServiceCall& call) {
  const double end = clock_.now() + request.seconds;
  for (int redirects = 0;; ++redirects) {
    HttpRequest dressed = request;
    dressed.seconds = std::max(end - clock_.now(), 0.001);
    if (find_origin(request.url) == origin_) dressed.headers.emplace_back("Authorization", "Bearer " + options_.key);
    HttpResponse response = transport_.send(dressed);
    const auto contract = response.find_header("tunix-contract");
    if (contract && *contract != "1" && !contract->starts_with("1.")) {
      throw Error(ErrorKind::kApi,
                  fmt::format("{}: the service speaks version {} of the contract, this program version 1; use a newer "
                              "gemma-sft",
                              origin_.text(), text_.shown(*contract, 20)));
    }
    if (!is_redirect(response.status)) return response;
    const std::string target = resolve_location(request.url, response.find_header("location").value_or(""));
    const auto to = find_origin(target);
    const std::string shown = to ? text_.shown(to->text(), 200) : "an address that is none";
    if (request.method != HttpMethod::kGet && request.method != HttpMethod::kHead) {
      throw Error(ErrorKind::kApi, fmt::format("{}: {} redirects to {}, and what is sent there is not sent again "
                                               "elsewhere; give the right address with --base-url",
                                               call.what, origin_.text(), shown));
    }
    if (!to || redirects == kMostRedirects) {
      throw Error(ErrorKind::kApi, fmt::format("{}: {} redirects {}; check the address of the service", call.what,
                                               origin_.text(), to ? "in a circle" : "to " + shown));
    }
    const bool safe = to->scheme == "https" || (to->is_loopback() && origin_.is_loopback());
    if (*to != origin_ && (!call.leaves_home || !safe)) {
      throw Error(ErrorKind::kApi, fmt::format("{}: {} redirects to {}, another server; it is not followed. If that is "
                                               "the service, give its address with --base-url",
                                               call.what, origin_.text(), shown));
    }
    request.url = target;
  }
}

bool ServiceCaller::passes(const HttpResponse& response) const {
  switch (response.status) {
    case 408:
    case 500:
    case 502:
    case 503:
    case 504: return true;
    case 429: return !is_about_quota(parse_problem(429, response.body, text_));
    default: return false;
  }
}

// Interrupted, or a certificate that will be no better the next time.
void ServiceCaller::require_passing(const TransportFailure& failure) const {
  if (failure.kind == TransportFailure::Kind::kInterrupted) throw Interrupted{};
  if (failure.kind != TransportFailure::Kind::kUntrusted) return;
  throw Error(ErrorKind::kApi,
              fmt::format("{}: its certificate is not accepted: {}; where the service has a certificate authority of "
                          "its own, name its file in TUNIX_CA_FILE",
                          origin_.text(), text_.shown(failure.message, 300)));
}

std::optional<double> ServiceCaller::retry_after(const HttpResponse& response) const {
  const auto header = response.find_header("retry-after");
  return header ? parse_retry_after(*header, clock_.wall_time()) : std::nullopt;
}

void ServiceCaller::fail(const HttpResponse& response, const ServiceCall& call) const {
  ServiceContext context = options_.context;
  context.job_id = call.job_id;
  ServiceProblem problem = parse_problem(response.status, response.body, text_);
  if (problem.request_id.empty()) {
    problem.request_id = text_.shown(response.find_header("x-request-id").value_or(""), 128);
  }
  throw service_error(problem, context);
}

void ServiceCaller::give_up(const std::string& problem, const Retry& retry, const ServiceCall& call) const {
  std::string text = fmt::format("{} ({}): {}; tried {} times in {:.0f} s", call.what, origin_.text(), problem,
                                 retry.attempts(), retry.seconds());
  if (!call.job_id.empty()) {
    text += fmt::format("\nThe job {} is left as it is: gemma-sft jobs watch {}", call.job_id, call.job_id);
  }
  throw Error(ErrorKind::kApi, text);
}

HttpResponse ServiceCaller::call(const HttpRequest& request, const ServiceCall& call) {
  Retry retry = make_retry();
  int not_found = 0;
  for (;;) {
    std::string problem;
    std::optional<double> delay;
    HttpRequest timed = request;
    timed.seconds = std::clamp(retry.left(), 1.0, request.seconds);
    try {
      HttpResponse response = send_once(timed, call);
      if (response.status >= 200 && response.status < 300) {
        try {
          call.accept(response);
          return response;
        } catch (const Unreadable& unreadable) {
          problem = "an answer that cannot be read: " + unreadable.why;
        }
      } else if (response.status == 404 && ++not_found <= call.confirm_404 && retry.left() > 0) {
        problem = "404";
      } else if (passes(response) && retry.left() > 0) {
        delay = retry_after(response);
        problem = fmt::format("{}", response.status);
      } else {
        fail(response, call);
      }
    } catch (const TransportFailure& failure) {
      require_passing(failure);
      problem = text_.shown(failure.message, 300);
    }
    if (!retry.wait(delay)) give_up(problem, retry, call);
  }
}

void ServiceCaller::set_smaller_accelerators(const std::string& list) { options_.context.smaller_accelerators = list; }

}  // namespace gemma_sft
