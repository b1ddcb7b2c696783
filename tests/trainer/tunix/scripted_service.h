// A job service as a transport inside the test: it keeps jobs as a real one would, and a script says what goes wrong at
// which request. Time is the test's own.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/tunix/clock.h"
#include "trainer/tunix/http_job_client.h"
#include "trainer/tunix/http_transport.h"

namespace gemma_sft {

class FakeClock : public Clock {
 public:
  double now() const override { return now_; }
  double wall_time() const override { return 1'700'000'000 + now_; }
  void sleep(double seconds) override {
    now_ += seconds;
    slept_.push_back(seconds);
  }
  bool interrupted() const override { return false; }
  const std::vector<double>& slept() const { return slept_; }

 private:
  double now_ = 0;
  std::vector<double> slept_;
};

// What happens to one request instead of its usual answer.
struct ServiceFault {
  enum class Kind { kNone, kNotSent, kLostBefore, kLostAfter, kStatusBefore, kStatusAfter, kGarbageAfter };
  Kind kind = Kind::kNone;
  int status = 503;
  std::string body = "<html>gone</html>";
  std::vector<std::pair<std::string, std::string>> headers = {};
};

class ScriptedService : public HttpTransport {
 public:
  std::deque<ServiceFault> faults;              // of the next requests, in order
  bool honours_keys = true;                     // a repeated POST gives the first job; otherwise it is refused with 409
  std::map<std::string, HttpResponse> answers;  // fixed ones, by "METHOD path"
  std::vector<HttpRequest> requests;

  size_t jobs() const { return jobs_.size(); }

  HttpResponse send(const HttpRequest& request) override {
    requests.push_back(request);
    ServiceFault fault;
    if (!faults.empty()) {
      fault = faults.front();
      faults.pop_front();
    }
    using Kind = ServiceFault::Kind;
    if (fault.kind == Kind::kNotSent) throw TransportFailure{TransportFailure::Kind::kNotSent, "refused"};
    if (fault.kind == Kind::kLostBefore) throw TransportFailure{TransportFailure::Kind::kLost, "reset"};
    const HttpResponse failure{fault.status, fault.headers, fault.body};
    if (fault.kind == Kind::kStatusBefore) return failure;
    const HttpResponse answer = act(request);
    if (fault.kind == Kind::kLostAfter) throw TransportFailure{TransportFailure::Kind::kLost, "reset"};
    if (fault.kind == Kind::kStatusAfter) return failure;
    if (fault.kind == Kind::kGarbageAfter) return {200, {}, "{\"id\": 7"};
    return answer;
  }

  static HttpResponse json(int status, const nlohmann::json& body) { return {status, {}, body.dump()}; }

 private:
  HttpResponse act(const HttpRequest& request) {
    static const std::map<HttpMethod, std::string> names = {
        {HttpMethod::kGet, "GET"}, {HttpMethod::kHead, "HEAD"}, {HttpMethod::kPost, "POST"}, {HttpMethod::kPut, "PUT"}};
    const std::string path = request.url.substr(request.url.find("/v1") + 3);
    const std::string plain = path.substr(0, path.find('?'));
    if (const auto fixed = answers.find(names.at(request.method) + " " + plain); fixed != answers.end()) {
      return fixed->second;
    }
    if (plain == "/jobs" && request.method == HttpMethod::kPost) return submit(request);
    if (plain == "/jobs") {
      nlohmann::json data = nlohmann::json::array();
      for (auto job = jobs_.rbegin(); job != jobs_.rend(); ++job) data.push_back(*job);
      return json(200, {{"data", data}, {"has_more", false}, {"next", nullptr}});
    }
    for (const auto& job : jobs_) {
      if (plain == "/jobs/" + job.at("id").get<std::string>()) return json(200, job);
    }
    return json(404, {{"error", {{"code", "not_found"}, {"message", "no such thing"}}}});
  }

  HttpResponse submit(const HttpRequest& request) {
    std::string key;
    for (const auto& [name, value] : request.headers) {
      if (name == "Idempotency-Key") key = value;
    }
    const nlohmann::json body = nlohmann::json::parse(request.body);
    if (const auto known = by_key_.find(key); known != by_key_.end()) {
      if (honours_keys) return json(200, jobs_[known->second]);
      return json(409, {{"error", {{"code", "idempotency_conflict"}, {"message", "key used"}}}});
    }
    by_key_[key] = jobs_.size();
    jobs_.push_back({{"id", "job_abc12345" + std::to_string(jobs_.size())},
                     {"state", "pending"},
                     {"spec", {{"labels", body.at("labels")}}}});
    return json(201, jobs_.back());
  }

  std::vector<nlohmann::json> jobs_;
  std::map<std::string, size_t> by_key_;
};

}  // namespace gemma_sft
