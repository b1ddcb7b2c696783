#include "tests/trainer/tunix/scripted_service.h"

#include <algorithm>
#include <array>
#include <utility>

#include "data/files/sha256.h"

namespace gemma_sft {

JobSpec small_job(const std::string& submission) {
  RunConfig config;
  config.tunix.project_id = "p";
  return make_job_spec({.config = config,
                        .run_id = "r",
                        .output_uri = {},
                        .max_seq_length = 128,
                        .dataset_id = "ds_1",
                        .submission = submission,
                        .config_sha256 = "c",
                        .client_version = "1"});
}
namespace {

using Json = nlohmann::json;
using Kind = ServiceFault::Kind;

const char* name_of(HttpMethod method) {
  return std::array{"GET", "HEAD", "POST", "PUT"}.at(static_cast<size_t>(method));
}

std::string from_query(const std::string& query, const std::string& name) {
  const std::string all = "&" + query;
  const size_t at = all.find("&" + name + "=");
  if (at == std::string::npos) return "";
  const size_t from = at + name.size() + 2;
  return all.substr(from, all.find('&', from) - from);
}

std::string unescaped(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      result += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

bool is_terminal_name(const std::string& state) { return state != "pending" && state != "running"; }

// Hands the body to the request's sink, as the real transport does.
HttpResponse delivered(const HttpRequest& request, HttpResponse response, size_t cut_after) {
  const bool cut = response.body.size() > cut_after;
  if (request.sink && (response.status == 200 || response.status == 206)) {
    const std::string body = std::exchange(response.body, "");
    if (!request.sink->begin(response)) return response;
    for (size_t at = 0; at < std::min(body.size(), cut_after); at += 10'000) {
      request.sink->append(std::string_view(body).substr(at, std::min<size_t>(10'000, cut_after - at)));
    }
  }
  if (cut) throw TransportFailure{TransportFailure::Kind::kLost, "cut"};
  if (!request.sink && response.body.size() > request.max_body_bytes) {
    throw TransportFailure{TransportFailure::Kind::kTooLarge, "too long"};
  }
  return response;
}

}  // namespace

std::string header_of(const HttpRequest& request, const std::string& name) {
  const auto lower = [](std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
  };
  for (const auto& [known, value] : request.headers) {
    if (lower(known) == lower(name)) return value;
  }
  return "";
}

HttpResponse ScriptedService::problem(int status, const std::string& code, const std::string& message) {
  return json(status, {{"error", {{"code", code}, {"message", message}, {"request_id", "req_1"}}}});
}

HttpResponse ScriptedService::send(const HttpRequest& request) {
  requests.push_back(request);
  ServiceFault fault = every_fault.value_or(ServiceFault{});
  if (!faults.empty()) {
    fault = faults.front();
    faults.pop_front();
  }
  const HttpResponse instead{fault.status, fault.headers, fault.body};
  switch (fault.kind) {
    case Kind::kNotSent: throw TransportFailure{TransportFailure::Kind::kNotSent, "refused"};
    case Kind::kUntrusted: throw TransportFailure{TransportFailure::Kind::kUntrusted, "self-signed"};
    case Kind::kLostBefore: throw TransportFailure{TransportFailure::Kind::kLost, "reset"};
    case Kind::kTimeout:
      takes(request.seconds);
      throw TransportFailure{TransportFailure::Kind::kLost, "no answer in time"};
    case Kind::kTooLarge: throw TransportFailure{TransportFailure::Kind::kTooLarge, "too long"};
    case Kind::kStatusBefore: return delivered(request, instead, SIZE_MAX);
    case Kind::kKilledBefore: throw SimulatedKill{};
    default: break;
  }
  HttpResponse usual = answer(request);
  switch (fault.kind) {
    case Kind::kLostAfter: throw TransportFailure{TransportFailure::Kind::kLost, "reset"};
    case Kind::kStatusAfter: return instead;
    case Kind::kGarbageAfter: return {200, {}, "{\"id\": 7"};
    case Kind::kKilledAfter: throw SimulatedKill{};
    default: break;
  }
  const bool is_file = request.url.find("/artifacts/") != std::string::npos;
  return delivered(request, std::move(usual), is_file ? file_page_bytes : SIZE_MAX);
}

HttpResponse ScriptedService::answer(const HttpRequest& request) {
  const std::string target = request.url.substr(request.url.find("/v1") + 3);
  const size_t mark = target.find('?');
  const std::string path = target.substr(0, mark);
  const std::string query = mark == std::string::npos ? "" : target.substr(mark + 1);
  if (const auto fixed = answers.find(std::string(name_of(request.method)) + " " + path); fixed != answers.end()) {
    return fixed->second;
  }
  if (!key.empty() && header_of(request, "Authorization") != "Bearer " + key) {
    return problem(401, "invalid_api_key", "Invalid API key");
  }
  const bool post = request.method == HttpMethod::kPost;
  if (path == "/auth/test") {
    return json(200, {{"ok", true}, {"key", {{"prefix", "tunix_sk_dev"}}}, {"projects", {{{"id", "p"}}}}});
  }
  if (path.ends_with("/quota")) return json(200, {{"limit", 8}, {"in_use", 0}, {"available", 8}});
  if (path == "/accelerators") {
    return json(200, {{{"name", "tpu-v3-8"}, {"cores", 8}, {"hbm_bytes_per_core", 17'179'869'184}}});
  }
  if (path == "/cost-estimates" && post) {
    return json(
        200, {{"steps", 3}, {"tokens", 9}, {"hours", {{"low", 1}, {"high", 2}}}, {"usd", {{"low", 8}, {"high", 16}}}});
  }
  if (path == "/datasets" && post) return create_dataset(request);
  if (path.starts_with("/datasets/")) {
    const std::string id = path.substr(10, path.find('/', 10) - 10);
    const auto found = datasets_.find(id);
    if (found == datasets_.end()) return problem(404, "not_found", "no such data set");
    if (!path.ends_with("/content")) return json(200, dataset_json(found->second, max_part_bytes));
    if (request.method == HttpMethod::kPut) return put_part(request, found->second);
    return {200, {{"upload-offset", std::to_string(found->second.bytes.size())}}, ""};
  }
  if (path == "/jobs" && post) return submit(request);
  if (path == "/jobs") return list(query);
  if (path.starts_with("/jobs/")) {
    const std::string id = path.substr(6, path.find('/', 6) - 6);
    for (StoredJob& job : jobs_) {
      if (job.body.at("id") == id) return about_job(request, path.substr(6 + id.size()), query, job);
    }
  }
  return problem(404, "not_found", "no such thing");
}

Json ScriptedService::dataset_json(const StoredDataset& dataset, uint64_t part) {
  const bool right = dataset.complete() && sha256_hex(dataset.bytes) == dataset.sha256;
  Json body = {{"id", dataset.id},
               {"state", !dataset.complete() ? "awaiting_upload"
                         : right             ? "ready"
                                             : "invalid"},
               {"upload", {{"max_part_bytes", part}}},
               {"errors", Json::array()}};
  if (dataset.complete() && !right) body["errors"] = {{{"line", 1}, {"message", "the digest is another"}}};
  return body;
}

HttpResponse ScriptedService::create_dataset(const HttpRequest& request) {
  const Json body = Json::parse(request.body);
  const std::string used = header_of(request, "Idempotency-Key");
  if (const auto known = dataset_by_key_.find(used); known != dataset_by_key_.end()) {
    return json(200, dataset_json(datasets_.at(known->second), max_part_bytes));
  }
  StoredDataset dataset;
  dataset.id = "ds_" + std::to_string(datasets_.size() + 1);
  dataset.sha256 = body.at("sha256");
  dataset.size = body.at("bytes");
  dataset_by_key_[used] = dataset.id;
  return json(201, dataset_json(datasets_[dataset.id] = dataset, max_part_bytes));
}

HttpResponse ScriptedService::put_part(const HttpRequest& request, StoredDataset& dataset) {
  const std::string range = header_of(request, "Content-Range");  // "bytes 0-63/100"
  if (range.empty() || std::stoull(range.substr(6)) != dataset.bytes.size()) {
    return problem(409, "offset_mismatch", "not the part that comes next");
  }
  dataset.bytes += request.body;
  return json(200, dataset_json(dataset, max_part_bytes));
}

HttpResponse ScriptedService::submit(const HttpRequest& request) {
  const std::string used = header_of(request, "Idempotency-Key");
  const Json body = Json::parse(request.body);
  if (const auto known = by_key_.find(used); known != by_key_.end()) {
    if (honours_keys) return json(200, job_json(jobs_[known->second]));
    return problem(refusal_status, "idempotency_conflict", "key used");
  }
  by_key_[used] = jobs_.size();
  jobs_.push_back({.body = {{"id", "job_abc12345" + std::to_string(jobs_.size())}, {"spec", body}}});
  return json(201, job_json(jobs_.back()));
}

Json ScriptedService::job_json(const StoredJob& job) const {
  Json body = job.body;
  const bool over = job.looks >= looks_until_end;
  body["state"] = over ? (job.cancel_wanted ? "cancelled" : end_state)
                       : (job.cancel_wanted ? "cancel_requested" : (job.looks < 2 ? "pending" : "running"));
  body["phase"] = over ? Json(nullptr) : Json(job.looks < 2 ? "queued" : "training");
  body["total_steps"] = looks_until_end;
  body["step"] = std::min(job.looks, looks_until_end);
  body["error"] = over ? end_error : Json(nullptr);
  return body;
}

HttpResponse ScriptedService::list(const std::string& query) const {
  const std::string after = from_query(query, "after");
  const std::string state = from_query(query, "state");
  const std::string experiment = unescaped(from_query(query, "experiment"));
  const size_t limit = std::stoul(from_query(query, "limit"));
  Json data = Json::array();
  bool begun = after.empty(), more = false;
  for (auto job = jobs_.rbegin(); job != jobs_.rend(); ++job) {
    const Json body = job_json(*job);
    if (!begun) {
      begun = body.at("id") == after;
      continue;
    }
    if (!state.empty() && body.at("state") != state) continue;
    if (!experiment.empty() && body.at("spec").at("experiment_name") != experiment) continue;
    if (data.size() == limit) {
      more = true;
      break;
    }
    data.push_back(body);
  }
  return json(200, {{"data", data}, {"has_more", more}, {"next", more ? data.back().at("id") : Json(nullptr)}});
}

// One event per look, the last one tells the end.
Json ScriptedService::events_of(const StoredJob& job) const {
  Json events = Json::array();
  for (int look = 1; look <= std::min(job.looks, looks_until_end); ++look) {
    events.push_back({{"seq", look},
                      {"ts", "2026-01-01T00:00:00Z"},
                      {"type", look == looks_until_end ? "status" : "log"},
                      {"level", "info"},
                      {"message", "event " + std::to_string(look)}});
  }
  return events;
}

HttpResponse ScriptedService::about_job(const HttpRequest& request, const std::string& rest, const std::string& query,
                                        StoredJob& job) {
  if (rest.empty()) {
    ++job.looks;
    return json(200, job_json(job));
  }
  if (rest == "/cancel") {
    if (is_terminal_name(job_json(job).at("state")) && !job.cancel_wanted) {
      return problem(409, "job_terminal", "it has ended");
    }
    job.cancel_wanted = true;
    return json(202, job_json(job));
  }
  if (rest == "/events") {
    const int after = std::stoi("0" + from_query(query, "after"));
    Json events = events_of(job);
    if (header_of(request, "Accept") == "text/event-stream") {
      std::string text = ": welcome\n\n";
      for (const Json& event : events) {
        if (event.at("seq") <= after) continue;
        text += "id: " + std::to_string(event.at("seq").get<int>()) +
                "\nevent: " + event.at("type").get<std::string>() + "\ndata: " + event.dump() +
                "\n\nevent: heartbeat\ndata: {}\n\n";
      }
      return {200, {{"content-type", "text/event-stream"}}, text};
    }
    Json data = Json::array();
    std::copy_if(events.begin(), events.end(), std::back_inserter(data),
                 [&](const Json& event) { return event.at("seq") > after; });
    return json(200, {{"data", data}, {"last_seq", events.size()}});
  }
  if (rest == "/artifacts") {
    Json data = Json::array();
    for (const auto& [path, bytes] : files) {
      data.push_back({{"path", path}, {"kind", "final_model"}, {"size", bytes.size()}, {"sha256", sha256_hex(bytes)}});
    }
    return json(200, {{"data", data}, {"complete", true}});
  }
  if (rest.starts_with("/artifacts/")) return file(request, unescaped(rest.substr(11)));
  return problem(404, "not_found", "no such thing");
}

HttpResponse ScriptedService::file(const HttpRequest& request, const std::string& path) const {
  const auto found = files.find(path);
  if (found == files.end()) return problem(404, "not_found", "no such file");
  const std::string& bytes = found->second;
  const std::string tag = "\"" + sha256_hex(bytes) + "\"";
  const std::string range = header_of(request, "Range");  // "bytes=100-"
  if (range.empty() || header_of(request, "If-Range") != tag) return {200, {{"etag", tag}}, bytes};
  const size_t from = std::stoul(range.substr(6));
  if (from >= bytes.size()) return {416, {}, ""};
  return {206,
          {{"etag", tag},
           {"content-range", "bytes " + std::to_string(from) + "-" + std::to_string(bytes.size() - 1) + "/" +
                                 std::to_string(bytes.size())}},
          bytes.substr(from)};
}

}  // namespace gemma_sft
