#include "trainer/tunix/http_job_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "configs/error.h"
#include "trainer/tunix/artifact_download.h"
#include "trainer/tunix/dataset_upload.h"
#include "trainer/tunix/event_stream.h"
#include "trainer/tunix/service_errors.h"
#include "trainer/tunix/service_json.h"

namespace gemma_sft {
namespace {

constexpr int kConfirmed404 = 3;
constexpr int kMostPages = 10;  // of jobs, when one's own is looked for

void require_job_id(const std::string& id) {
  if (is_job_id(id)) return;
  throw Error(ErrorKind::kUsage, "the id of a job is job_ and letters and digits, such as job_abc123xyz");
}

const std::string kQuotaConsole = "https://console.cloud.google.com/iam-admin/quotas";

}  // namespace

HttpJobClient::HttpJobClient(HttpTransport& transport, Clock& clock, HttpJobClientOptions options)
    : caller_(transport, clock, std::move(options)) {}

void HttpJobClient::set_smaller_accelerators(const std::string& list) { caller_.set_smaller_accelerators(list); }

KeyInfo HttpJobClient::auth_test() {
  KeyInfo info;
  caller_.call(caller_.make_request(HttpMethod::kGet, "/auth/test"),
               {.what = "GET /auth/test",
                .accept = [&](const auto& answer) { info = parse_key_info(answer.body, caller_.text()); }});
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
  caller_.call(caller_.make_request(HttpMethod::kGet, path),
               {.what = "GET /projects/.../quota",
                .accept = [&](const auto& answer) { quota = parse_quota(answer.body, caller_.text()); }});
  if (quota.console_url.empty()) quota.console_url = kQuotaConsole;
  return quota;
}

PriceTable HttpJobClient::accelerators() {
  PriceTable table;
  caller_.call(caller_.make_request(HttpMethod::kGet, "/accelerators"),
               {.what = "GET /accelerators",
                .accept = [&](const auto& answer) { table = parse_accelerators(answer.body, caller_.text()); }});
  table.source = caller_.origin().text();
  return table;
}

ServiceEstimate HttpJobClient::estimate_cost(const JobSpec& spec) {
  ServiceEstimate estimate;
  HttpRequest request = caller_.make_request(HttpMethod::kPost, "/cost-estimates");
  request.headers.emplace_back("Content-Type", "application/json");
  request.body = spec.body;
  caller_.call(request, {.what = "POST /cost-estimates", .accept = [&](const auto& answer) {
                           estimate = parse_estimate(answer.body, caller_.text());
                         }});
  return estimate;
}

std::string HttpJobClient::upload_dataset(const DatasetUpload& upload, const std::string& project_id,
                                          const std::string& idempotency_key) {
  return gemma_sft::upload_dataset(caller_, upload, project_id, idempotency_key);
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
  HttpRequest request = caller_.make_request(HttpMethod::kPost, "/jobs");
  request.headers.emplace_back("Content-Type", "application/json");
  request.headers.emplace_back("Idempotency-Key", spec.submission);
  request.body = spec.body;
  const ServiceCall how{.what = "POST /jobs"};
  Retry retry = caller_.make_retry();
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
      const HttpResponse response = caller_.send_once(request, how);
      if (response.status >= 200 && response.status < 300) {
        try {
          return parse_job(response.body, caller_.text());
        } catch (const Unreadable& unreadable) {
          problem = "an answer that cannot be read: " + unreadable.why;
          perhaps_made = true;
        }
      } else if (response.status == 409 || response.status == 422) {
        const ServiceProblem refusal = parse_problem(response.status, response.body, caller_.text());
        const bool about_key = refusal.code.find("idempotency") != std::string::npos;
        if (about_key) {
          if (const auto job = find()) return *job;
        }
        caller_.fail(response, how);
      } else if (caller_.passes(response)) {
        delay = caller_.retry_after(response);
        problem = fmt::format("{}", response.status);
        if (response.status != 429) perhaps_made = true;
        if (retry.left() <= 0 && !perhaps_made) caller_.fail(response, how);
      } else {
        caller_.fail(response, how);
      }
    } catch (const TransportFailure& failure) {
      caller_.require_passing(failure);
      problem = caller_.text().shown(failure.message, 300);
      if (failure.kind != TransportFailure::Kind::kNotSent) perhaps_made = true;
    }
    if (!retry.wait(delay)) {
      if (perhaps_made) {
        if (const auto job = find()) return *job;
        problem += "; " + unknown;
      }
      caller_.give_up(problem, retry, how);
    }
  }
}

Job HttpJobClient::status(const std::string& id) {
  require_job_id(id);
  Job job;
  caller_.call(caller_.make_request(HttpMethod::kGet, "/jobs/" + id), {.what = "GET /jobs/" + id,
                                                                       .accept =
                                                                           [&](const auto& answer) {
                                                                             job =
                                                                                 parse_job(answer.body, caller_.text());
                                                                             if (job.id != id)
                                                                               throw Unreadable{"it is another job's"};
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
  HttpRequest request = caller_.make_request(HttpMethod::kGet, path);
  request.max_body_bytes = 4'000'000;  // a hundred jobs with what they were made from
  caller_.call(request, {.what = "GET /jobs",
                         .accept = [&](const auto& answer) { page = parse_job_page(answer.body, caller_.text()); }});
  return page;
}

EventPage HttpJobClient::events(const std::string& id, int64_t after) {
  require_job_id(id);
  EventPage page;
  HttpRequest request =
      caller_.make_request(HttpMethod::kGet, fmt::format("/jobs/{}/events?after={}&limit=200&wait=0", id, after));
  request.max_body_bytes = 8'000'000;  // lines of a log may be long
  caller_.call(request, {.what = fmt::format("GET /jobs/{}/events", id),
                         .accept = [&](const auto& answer) { page = parse_events(answer.body, after, caller_.text()); },
                         .job_id = id});
  return page;
}

EventStreamEnd HttpJobClient::stream_events(const std::string& id, int64_t after,
                                            const std::function<bool(const JobEvent&)>& on_event) {
  require_job_id(id);
  struct Stopped {};
  using Why = EventStreamEnd::Why;
  const ServiceCall how{.what = fmt::format("GET /jobs/{}/events", id), .job_id = id};
  HttpRequest request = caller_.make_request(HttpMethod::kGet, fmt::format("/jobs/{}/events?after={}", id, after));
  std::erase_if(request.headers, [](const auto& header) { return header.first == "Accept"; });
  request.headers.emplace_back("Accept", "text/event-stream");
  if (after > 0) request.headers.emplace_back("Last-Event-ID", std::to_string(after));
  EventStreamEnd end{.why = Why::kClosed, .last_sequence = after};
  EventStreamParser parser([&](const StreamedEvent& streamed) {
    if (streamed.name == "heartbeat") return;
    const auto sequence = parse_header_number(streamed.id);
    if (!sequence || *sequence > uint64_t{INT64_MAX}) return;
    const JobEvent event = parse_event(streamed.data, static_cast<int64_t>(*sequence), streamed.name, caller_.text());
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
    const HttpResponse response = caller_.send_once(request, how);
    if (response.status == 401 || response.status == 403) caller_.fail(response, how);
    const bool passing =
        response.status >= 500 ? response.status != 501 && response.status != 505 : caller_.passes(response);
    if (!streams && !passing) end.why = Why::kUnavailable;
  } catch (const Stopped&) {
    end.why = Why::kStopped;
  } catch (const Unreadable&) {  // a page says what is wrong with it
    end.why = Why::kUnavailable;
  } catch (const TransportFailure& failure) {
    caller_.require_passing(failure);
  }
  return end;
}

Job HttpJobClient::cancel(const std::string& id) {
  require_job_id(id);
  HttpRequest request = caller_.make_request(HttpMethod::kPost, fmt::format("/jobs/{}/cancel", id));
  request.headers.emplace_back("Content-Type", "application/json");
  // One key for one job's end, so that every repetition is the same request.
  request.headers.emplace_back("Idempotency-Key", "cancel-" + id);
  request.body = R"({"save_checkpoint":true})";
  try {
    caller_.call(request, {.what = fmt::format("POST /jobs/{}/cancel", id), .job_id = id});
  } catch (const ApiError& error) {
    if (error.status() != 409) throw;  // 409: it has ended
  }
  return status(id);  // the service's word is what counts
}

ArtifactList HttpJobClient::artifacts(const std::string& id) {
  require_job_id(id);
  ArtifactList list;
  HttpRequest request = caller_.make_request(HttpMethod::kGet, fmt::format("/jobs/{}/artifacts", id));
  request.max_body_bytes = 4'000'000;  // every file of every checkpoint
  caller_.call(request, {.what = fmt::format("GET /jobs/{}/artifacts", id),
                         .accept =
                             [&](const auto& answer) {
                               list = parse_artifacts(answer.body, caller_.text());
                               if (!list.complete) throw Unreadable{"the list of files is not complete yet"};
                             },
                         .confirm_404 = kConfirmed404,
                         .job_id = id});
  return list;
}

void HttpJobClient::download(const std::string& id, const Artifact& artifact, ArtifactSink& sink) {
  require_job_id(id);
  download_artifact(caller_, id, artifact, sink);
}

}  // namespace gemma_sft
