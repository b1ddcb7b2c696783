#include "trainer/tunix/http_job_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <nlohmann/json.hpp>

#include "data/files/input_file.h"
#include "data/files/sha256.h"
#include "trainer/tunix/event_stream.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMostRedirects = 5;
constexpr int kConfirmed404 = 3;
constexpr double kCallSeconds = 60;
constexpr uint64_t kLeastProgress = 1'000'000;  // bytes of a download after which its time begins anew
constexpr double kPartSeconds = 120;
constexpr uint64_t kPartBytes = 4'000'000;
constexpr int64_t kSlowestDownload = 1000;  // bytes a second
constexpr int kMostPages = 10;              // of jobs, when one's own is looked for

std::string percent_encoded(std::string_view text, std::string_view kept = "") {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
                       c == '.' || c == '_' || c == '~' || kept.find(c) != std::string_view::npos;
    result += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return result;
}

// "bytes 100-199/200"
struct ContentRange {
  uint64_t first = 0;
  uint64_t total = 0;
};
std::optional<ContentRange> parse_content_range(const std::string& text) {
  ContentRange range;
  if (!text.starts_with("bytes ")) return std::nullopt;
  const char* const end = text.data() + text.size();
  auto [after, error] = std::from_chars(text.data() + 6, end, range.first);
  if (error != std::errc() || after == end || *after != '-') return std::nullopt;
  const size_t slash = text.find('/');
  if (slash == std::string::npos) return std::nullopt;
  const auto [last, bad] = std::from_chars(text.data() + slash + 1, end, range.total);
  if (bad != std::errc() || last != end) return std::nullopt;
  return range;
}

std::optional<uint64_t> parse_whole(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_strong_tag(const std::string& tag) {
  return tag.size() > 2 && tag.size() < 200 && tag.front() == '"' && tag.back() == '"' &&
         std::all_of(tag.begin(), tag.end(), [](char c) { return c > ' ' && c < 127; });
}

bool is_digest_tag(const std::string& tag) {
  return is_strong_tag(tag) && tag.size() == 66 && tag.find_first_not_of("0123456789abcdef", 1) == 65;
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

void require_job_id(const std::string& id) {
  if (is_job_id(id)) return;
  throw Error(ErrorKind::kUsage, "the id of a job is job_ and letters and digits, such as job_abc123xyz");
}

const std::string kQuotaConsole = "https://console.cloud.google.com/iam-admin/quotas";

}  // namespace

// How one kind of call behaves.
struct HttpJobClient::Call {
  std::string what;  // "GET /jobs/job_1", for messages
  // Reads the body of a 2xx; throws Unreadable.
  std::function<void(const HttpResponse&)> accept = [](const HttpResponse&) {};
  bool leaves_home = false;  // may be redirected to another server, which does not get the key
  int confirm_404 = 0;       // how often a 404 is asked about again
  std::string job_id = {};
};

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

HttpJobClient::HttpJobClient(HttpTransport& transport, Clock& clock, HttpJobClientOptions options)
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

HttpRequest HttpJobClient::make_request(HttpMethod method, const std::string& path) const {
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
HttpResponse HttpJobClient::send_once(HttpRequest request, const Call& call) {
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

bool HttpJobClient::passes(const HttpResponse& response) const {
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
void HttpJobClient::require_passing(const TransportFailure& failure) const {
  if (failure.kind == TransportFailure::Kind::kInterrupted) throw Interrupted{};
  if (failure.kind != TransportFailure::Kind::kUntrusted) return;
  throw Error(ErrorKind::kApi,
              fmt::format("{}: its certificate is not accepted: {}; where the service has a certificate authority of "
                          "its own, name its file in TUNIX_CA_FILE",
                          origin_.text(), text_.shown(failure.message, 300)));
}

std::optional<double> HttpJobClient::retry_after(const HttpResponse& response) const {
  const auto header = response.find_header("retry-after");
  return header ? parse_retry_after(*header, clock_.wall_time()) : std::nullopt;
}

void HttpJobClient::fail(const HttpResponse& response, const Call& call) const {
  ServiceContext context = options_.context;
  context.job_id = call.job_id;
  ServiceProblem problem = parse_problem(response.status, response.body, text_);
  if (problem.request_id.empty()) {
    problem.request_id = text_.shown(response.find_header("x-request-id").value_or(""), 128);
  }
  throw service_error(problem, context);
}

void HttpJobClient::give_up(const std::string& problem, const Retry& retry, const Call& call) const {
  std::string text = fmt::format("{} ({}): {}; tried {} times in {:.0f} s", call.what, origin_.text(), problem,
                                 retry.attempts(), retry.seconds());
  if (!call.job_id.empty()) {
    text += fmt::format("\nThe job {} is left as it is: gemma-sft jobs watch {}", call.job_id, call.job_id);
  }
  throw Error(ErrorKind::kApi, text);
}

HttpResponse HttpJobClient::call(const HttpRequest& request, const Call& call) {
  Retry retry(clock_, options_.retry_seconds, random_);
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

void HttpJobClient::set_smaller_accelerators(const std::string& list) { options_.context.smaller_accelerators = list; }

KeyInfo HttpJobClient::auth_test() {
  KeyInfo info;
  call(make_request(HttpMethod::kGet, "/auth/test"),
       {.what = "GET /auth/test", .accept = [&](const auto& answer) { info = parse_key_info(answer.body, text_); }});
  return info;
}

Quota HttpJobClient::quota(const std::string& project_id, const std::string& accelerator, const std::string& region) {
  Quota quota;
  std::string path = fmt::format("/projects/{}/quota", percent_encoded(project_id));
  char separator = '?';
  for (const auto& [name, value] : {std::pair("accelerator", accelerator), std::pair("region", region)}) {
    if (value.empty()) continue;
    path += fmt::format("{}{}={}", separator, name, percent_encoded(value));
    separator = '&';
  }
  call(make_request(HttpMethod::kGet, path), {.what = "GET /projects/.../quota", .accept = [&](const auto& answer) {
                                                quota = parse_quota(answer.body, text_);
                                              }});
  if (quota.console_url.empty()) quota.console_url = kQuotaConsole;
  return quota;
}

PriceTable HttpJobClient::accelerators() {
  PriceTable table;
  call(make_request(HttpMethod::kGet, "/accelerators"),
       {.what = "GET /accelerators",
        .accept = [&](const auto& answer) { table = parse_accelerators(answer.body, text_); }});
  table.source = origin_.text();
  return table;
}

ServiceEstimate HttpJobClient::estimate_cost(const JobSpec& spec) {
  ServiceEstimate estimate;
  HttpRequest request = make_request(HttpMethod::kPost, "/cost-estimates");
  request.headers.emplace_back("Content-Type", "application/json");
  request.body = spec.body;
  call(request, {.what = "POST /cost-estimates",
                 .accept = [&](const auto& answer) { estimate = parse_estimate(answer.body, text_); }});
  return estimate;
}

uint64_t HttpJobClient::uploaded_bytes(const std::string& path) {
  uint64_t offset = 0;
  call(make_request(HttpMethod::kHead, path), {.what = "HEAD /datasets/.../content", .accept = [&](const auto& answer) {
                                                 const auto known =
                                                     parse_whole(answer.find_header("upload-offset").value_or(""));
                                                 if (!known) throw Unreadable{"\"Upload-Offset\" is missing"};
                                                 offset = *known;
                                               }});
  return offset;
}

std::string HttpJobClient::upload_dataset(const DatasetUpload& upload, const std::string& project_id,
                                          const std::string& idempotency_key) {
  Json body = {{"project_id", project_id},  {"dataset_key", upload.dataset_key},
               {"build_id", nullptr},       {"format", "tokens"},
               {"line_count", upload.rows}, {"bytes", upload.bytes},
               {"sha256", upload.sha256},   {"manifest", nullptr}};
  if (!upload.manifest_json.empty()) {
    const Json manifest = Json::parse(upload.manifest_json, nullptr, /*allow_exceptions=*/false);
    if (manifest.is_object()) {
      body["manifest"] = manifest;
      if (manifest.contains("build_id") && manifest["build_id"].is_string()) body["build_id"] = manifest["build_id"];
    }
  }
  HttpRequest create = make_request(HttpMethod::kPost, "/datasets");
  create.headers.emplace_back("Content-Type", "application/json");
  create.headers.emplace_back("Idempotency-Key", idempotency_key);
  create.body = body.dump();
  DatasetState dataset;
  const auto accept = [&](const HttpResponse& answer) { dataset = parse_dataset(answer.body, text_); };
  call(create, {.what = "POST /datasets", .accept = accept});

  const std::string path = "/datasets/" + dataset.id;
  const uint64_t part_bytes = std::clamp<uint64_t>(dataset.max_part_bytes, 1, kPartBytes);
  const InputFile file(upload.file);
  Retry retry(clock_, options_.retry_seconds, random_);
  uint64_t sent = 0;
  bool begun = false;
  while (dataset.state == "awaiting_upload") {
    const uint64_t offset = uploaded_bytes(path + "/content");
    if (offset > upload.bytes) {
      throw Error(ErrorKind::kApi,
                  fmt::format("HEAD {}/content: the service says it has {} bytes of {}", path, offset, upload.bytes));
    }
    if (offset > sent) retry.restart();
    if (offset == upload.bytes || (begun && offset <= sent)) {  // it is checking, or a part got lost
      if (!retry.wait(std::nullopt)) give_up("the data set does not become ready", retry, {.what = "PUT " + path});
      call(make_request(HttpMethod::kGet, path), {.what = "GET " + path, .accept = accept});
      if (offset == upload.bytes) continue;
    }
    if (dataset.state != "awaiting_upload") break;
    sent = offset;
    begun = true;
    std::string part(std::min(part_bytes, upload.bytes - offset), '\0');
    if (file.read_some(offset, part.data(), part.size()) != part.size()) {
      throw Error(ErrorKind::kIo, fmt::format("{}: shorter than it was; start again", upload.file.string()));
    }
    HttpRequest put = make_request(HttpMethod::kPut, path + "/content");
    put.headers.emplace_back("Content-Type", "application/octet-stream");
    put.headers.emplace_back("Content-Range",
                             fmt::format("bytes {}-{}/{}", offset, offset + part.size() - 1, upload.bytes));
    put.body = std::move(part);
    put.seconds = std::clamp(retry.left(), 1.0, kPartSeconds);
    try {
      const HttpResponse answer = send_once(put, {.what = "PUT " + path + "/content"});
      if (answer.status >= 300 && answer.status != 409 && answer.status != 416 && !passes(answer)) {
        fail(answer, {.what = "PUT " + path + "/content"});
      }
    } catch (const TransportFailure& failure) {  // HEAD tells how far it came
      require_passing(failure);
    }
    call(make_request(HttpMethod::kGet, path), {.what = "GET " + path, .accept = accept});
  }
  if (dataset.state != "ready") {
    throw Error(ErrorKind::kData,
                fmt::format("{}: the service does not accept the rows: {}", upload.file.string(),
                            dataset.problems.empty() ? text_.shown(dataset.state, 64) : dataset.problems));
  }
  return dataset.id;
}

std::optional<Job> HttpJobClient::find_submitted(const JobSpec& spec) {
  JobFilter filter;
  filter.project_id = spec.project_id;
  filter.experiment = spec.experiment_name;
  filter.limit = 100;
  for (int page = 0; page < kMostPages; ++page) {
    const JobPage found = list(filter);
    for (const Job& job : found.jobs) {
      if (job.submission == spec.submission) return job;
    }
    if (!found.next) break;
    filter.after = found.next;
  }
  return std::nullopt;
}

// A POST whose outcome is not known is followed by a look at the jobs: one that carries our label is ours. Only when
// there is none is the POST sent again, and with the same key, so that a service that has the first one after all gives
// that back (or refuses the key, and then there is one to be found).
Job HttpJobClient::submit(const JobSpec& spec, Attempt attempt) {
  HttpRequest request = make_request(HttpMethod::kPost, "/jobs");
  request.headers.emplace_back("Content-Type", "application/json");
  request.headers.emplace_back("Idempotency-Key", spec.submission);
  request.body = spec.body;
  const Call how{.what = "POST /jobs"};
  Retry retry(clock_, options_.retry_seconds, random_);
  bool perhaps_made = attempt == Attempt::kRepeated;
  const std::string unknown =
      "whether the job was made is not known: the same command looks for it before it submits again";
  const auto find = [&] {
    try {
      return find_submitted(spec);
    } catch (const Error& error) {
      throw Error(error.kind(), fmt::format("{}\n{}", error.what(), unknown));
    }
  };
  for (;;) {
    if (perhaps_made) {
      if (const auto job = find()) return *job;
    }
    std::string problem;
    std::optional<double> delay;
    try {
      request.seconds = std::clamp(retry.left(), 1.0, kCallSeconds);
      const HttpResponse response = send_once(request, how);
      if (response.status >= 200 && response.status < 300) {
        try {
          return parse_job(response.body, text_);
        } catch (const Unreadable& unreadable) {
          problem = "an answer that cannot be read: " + unreadable.why;
          perhaps_made = true;
        }
      } else if (response.status == 409 || response.status == 422) {
        const ServiceProblem refusal = parse_problem(response.status, response.body, text_);
        const bool about_key = refusal.code.find("idempotency") != std::string::npos;
        if (about_key) {
          if (const auto job = find()) return *job;
        }
        fail(response, how);
      } else if (passes(response)) {
        delay = retry_after(response);
        problem = fmt::format("{}", response.status);
        if (response.status != 429) perhaps_made = true;
        if (retry.left() <= 0 && !perhaps_made) fail(response, how);
      } else {
        fail(response, how);
      }
    } catch (const TransportFailure& failure) {
      require_passing(failure);
      problem = text_.shown(failure.message, 300);
      if (failure.kind != TransportFailure::Kind::kNotSent) perhaps_made = true;
    }
    if (!retry.wait(delay)) {
      if (perhaps_made) {
        if (const auto job = find()) return *job;
        problem += "; " + unknown;
      }
      give_up(problem, retry, how);
    }
  }
}

Job HttpJobClient::status(const std::string& id) {
  require_job_id(id);
  Job job;
  call(make_request(HttpMethod::kGet, "/jobs/" + id), {.what = "GET /jobs/" + id,
                                                       .accept =
                                                           [&](const auto& answer) {
                                                             job = parse_job(answer.body, text_);
                                                             if (job.id != id) throw Unreadable{"it is another job's"};
                                                           },
                                                       .confirm_404 = kConfirmed404,
                                                       .job_id = id});
  return job;
}

JobPage HttpJobClient::list(const JobFilter& filter) {
  std::string path = fmt::format("/jobs?limit={}", std::clamp<int64_t>(filter.limit, 1, 100));
  if (!filter.project_id.empty()) path += "&project_id=" + percent_encoded(filter.project_id);
  if (filter.state) path += fmt::format("&state={}", job_state_name(*filter.state));
  if (filter.experiment) path += "&experiment=" + percent_encoded(*filter.experiment);
  if (filter.after) path += "&after=" + percent_encoded(*filter.after);
  JobPage page;
  HttpRequest request = make_request(HttpMethod::kGet, path);
  request.max_body_bytes = 4'000'000;  // a hundred jobs with what they were made from
  call(request,
       {.what = "GET /jobs", .accept = [&](const auto& answer) { page = parse_job_page(answer.body, text_); }});
  return page;
}

EventPage HttpJobClient::events(const std::string& id, int64_t after) {
  require_job_id(id);
  EventPage page;
  HttpRequest request =
      make_request(HttpMethod::kGet, fmt::format("/jobs/{}/events?after={}&limit=200&wait=0", id, after));
  request.max_body_bytes = 8'000'000;  // lines of a log may be long
  call(request, {.what = fmt::format("GET /jobs/{}/events", id),
                 .accept = [&](const auto& answer) { page = parse_events(answer.body, after, text_); },
                 .job_id = id});
  return page;
}

EventStreamEnd HttpJobClient::stream_events(const std::string& id, int64_t after,
                                            const std::function<bool(const JobEvent&)>& on_event) {
  require_job_id(id);
  struct Stopped {};
  using Why = EventStreamEnd::Why;
  const Call how{.what = fmt::format("GET /jobs/{}/events", id), .job_id = id};
  HttpRequest request = make_request(HttpMethod::kGet, fmt::format("/jobs/{}/events?after={}", id, after));
  std::erase_if(request.headers, [](const auto& header) { return header.first == "Accept"; });
  request.headers.emplace_back("Accept", "text/event-stream");
  if (after > 0) request.headers.emplace_back("Last-Event-ID", std::to_string(after));
  EventStreamEnd end{.why = Why::kClosed, .last_sequence = after};
  EventStreamParser parser([&](const StreamedEvent& streamed) {
    if (streamed.name == "heartbeat") return;
    const auto sequence = parse_whole(streamed.id);
    if (!sequence || *sequence > uint64_t{INT64_MAX}) return;
    const JobEvent event = parse_event(streamed.data, static_cast<int64_t>(*sequence), streamed.name, text_);
    if (event.sequence <= end.last_sequence) return;  // seen
    end.last_sequence = event.sequence;
    if (!on_event(event)) throw Stopped{};
  });
  bool streams = false;
  request.sink =
      HttpRequest::Sink{.begin =
                            [&](const HttpResponse& head) {
                              streams = head.status == 200 &&
                                        head.find_header("content-type").value_or("").starts_with("text/event-stream");
                              return streams;
                            },
                        .append = [&](std::string_view bytes) { parser.append(bytes); }};
  try {
    const HttpResponse response = send_once(request, how);
    if (response.status == 401 || response.status == 403) fail(response, how);
    const bool passing = response.status >= 500 ? response.status != 501 && response.status != 505 : passes(response);
    if (!streams && !passing) end.why = Why::kUnavailable;
  } catch (const Stopped&) {
    end.why = Why::kStopped;
  } catch (const Unreadable&) {  // a page says what is wrong with it
    end.why = Why::kUnavailable;
  } catch (const TransportFailure& failure) {
    require_passing(failure);
  }
  return end;
}

Job HttpJobClient::cancel(const std::string& id) {
  require_job_id(id);
  HttpRequest request = make_request(HttpMethod::kPost, fmt::format("/jobs/{}/cancel", id));
  request.headers.emplace_back("Content-Type", "application/json");
  // One key for one job's end, so that every repetition is the same request.
  request.headers.emplace_back("Idempotency-Key", "cancel-" + id);
  request.body = R"({"save_checkpoint":true})";
  try {
    call(request, {.what = fmt::format("POST /jobs/{}/cancel", id), .job_id = id});
  } catch (const ApiError& error) {
    if (error.status() != 409) throw;  // 409: it has ended
  }
  return status(id);  // the service's word is what counts
}

ArtifactList HttpJobClient::artifacts(const std::string& id) {
  require_job_id(id);
  ArtifactList list;
  HttpRequest request = make_request(HttpMethod::kGet, fmt::format("/jobs/{}/artifacts", id));
  request.max_body_bytes = 4'000'000;  // every file of every checkpoint
  call(request, {.what = fmt::format("GET /jobs/{}/artifacts", id),
                 .accept =
                     [&](const auto& answer) {
                       list = parse_artifacts(answer.body, text_);
                       if (!list.complete) throw Unreadable{"the list of files is not complete yet"};
                     },
                 .confirm_404 = kConfirmed404,
                 .job_id = id});
  return list;
}

void HttpJobClient::download(const std::string& id, const Artifact& artifact, ArtifactSink& sink) {
  require_job_id(id);
  const Call how{.what = fmt::format("GET /jobs/{}/artifacts/{}", id, text_.shown(artifact.path, 200)),
                 .leaves_home = true,
                 .job_id = id};
  std::string etag = fmt::format("\"{}\"", artifact.sha256);
  Retry retry(clock_, options_.retry_seconds, random_);
  uint64_t achieved = sink.size();
  while (sink.size() != artifact.size) {
    const uint64_t offset = sink.size();
    HttpRequest request =
        make_request(HttpMethod::kGet, fmt::format("/jobs/{}/artifacts/{}", id, percent_encoded(artifact.path, "/")));
    request.least_bytes_per_second = kSlowestDownload;
    request.seconds = std::clamp(retry.left(), 1.0, kCallSeconds);
    if (offset > 0) {
      request.headers.emplace_back("Range", fmt::format("bytes={}-", offset));
      request.headers.emplace_back("If-Range", etag);
    }
    bool another_file = false;
    request.sink = HttpRequest::Sink{
        .begin =
            [&](const HttpResponse& head) {
              // The service's own tags are digests; those of a storage that it sends us to are what they are.
              const std::string tag = head.find_header("etag").value_or("");
              another_file = is_digest_tag(tag) && tag.find(artifact.sha256) == std::string::npos;
              if (another_file) return false;
              if (is_strong_tag(tag)) etag = tag;
              // Something else than the file, such as the page of a gateway: nothing of it is used.
              const uint64_t expected = head.status == 206 ? artifact.size - offset : artifact.size;
              const auto length = head.find_header("content-length");
              if (length && parse_whole(*length) != expected) return false;
              if (head.status == 206) {
                const auto range = parse_content_range(head.find_header("content-range").value_or(""));
                if (!range || range->first != offset || range->total != artifact.size) {
                  sink.restart();  // not what was asked for: nothing of it is used
                  return false;
                }
                return true;
              }
              if (offset > 0) sink.restart();
              return true;
            },
        .append =
            [&](std::string_view bytes) {
              // After a restart a whole file comes, which may be longer than the rest that was asked for.
              if (sink.size() + bytes.size() > artifact.size) {
                throw TransportFailure{TransportFailure::Kind::kTooLarge, "the file is longer than the service said"};
              }
              sink.append(bytes);
            }};
    std::string problem;
    std::optional<double> delay;
    try {
      const HttpResponse response = send_once(request, how);
      if (another_file) {
        throw Error(ErrorKind::kIo,
                    fmt::format("{}: the file has changed since the list of files was made (its ETag is "
                                "another); start the download again",
                                how.what));
      }
      if (response.status == 416) {
        sink.restart();
        problem = "416";
      } else if (passes(response) && retry.left() > 0) {
        delay = retry_after(response);
        problem = fmt::format("{}", response.status);
      } else if (response.status == 404) {
        fail(response, {.what = how.what});  // it is the file that is not there, not the job
      } else if (response.status != 200 && response.status != 206) {
        fail(response, how);
      } else {
        problem = "the transfer ended early";
      }
    } catch (const TransportFailure& failure) {
      require_passing(failure);
      problem = text_.shown(failure.message, 300);
      if (failure.kind == TransportFailure::Kind::kTooLarge) sink.restart();
    }
    if (sink.size() == artifact.size) return;
    if (sink.size() >= achieved + kLeastProgress) {
      achieved = sink.size();
      retry.restart();
    }
    if (!retry.wait(delay)) give_up(problem, retry, how);
  }
}

}  // namespace gemma_sft
