// A job service inside the test: it keeps keys, data sets, jobs, events and files as a real one would, and a script
// says what goes wrong at which request. It is a transport by itself; LoopbackServer puts it behind a socket. Time is
// the test's own.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "trainer/tunix/clock.h"
#include "trainer/tunix/http_job_client.h"
#include "trainer/tunix/http_transport.h"

namespace gemma_sft {

// The smallest job that there can be.
JobSpec small_job(const std::string& submission = "key-1");

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

// What happens to one request instead of its usual answer. "Before" and "after" say whether the service acted first.
struct ServiceFault {
  enum class Kind {
    kNone,
    kNotSent,     // no connection
    kUntrusted,   // a certificate that is not accepted
    kLostBefore,  // no answer
    kLostAfter,
    kTimeout,       // no answer in the time that the request has
    kTooLarge,      // an answer longer than is allowed
    kStatusBefore,  // `status`, `headers`, `body`; 200 with another body included
    kStatusAfter,
    kGarbageAfter,
    kKilledBefore,  // the client's process ends here: SimulatedKill
    kKilledAfter,
  };
  Kind kind = Kind::kNone;
  int status = 503;
  std::string body = "<html>gone</html>";
  std::vector<std::pair<std::string, std::string>> headers = {};
};

// Not an Error and not a std::exception, so that no handler for failures takes it for one.
struct SimulatedKill {};

class ScriptedService : public HttpTransport {
 public:
  std::deque<ServiceFault> faults;              // of the next requests, in order
  std::optional<ServiceFault> every_fault;      // of all requests behind them
  bool honours_keys = true;                     // a repeated POST gives the first job; otherwise it is refused
  int refusal_status = 409;                     // with this status
  std::map<std::string, HttpResponse> answers;  // fixed ones, by "METHOD path"
  std::vector<HttpRequest> requests;

  std::string key;               // where set, requests without it are answered with 401
  uint64_t max_part_bytes = 64;  // of an upload
  int looks_until_end = 4;       // how often a job's status is asked for before it has ended
  std::string end_state = "completed";
  nlohmann::json end_error;  // the "error" of a job that has ended
  std::map<std::string, std::string> files = {{"final_model/config.json", "{}"},
                                              {"final_model/model.safetensors", std::string(150'000, 'w')}};
  std::function<void(double seconds)> takes = [](double) {};  // where time passes: a request without an answer
  size_t file_page_bytes = SIZE_MAX;  // an answer with a file ends after so many bytes, as if it had been cut

  size_t jobs() const { return jobs_.size(); }
  const nlohmann::json& job(size_t index) const { return jobs_.at(index).body; }
  const std::string& dataset(const std::string& id) const { return datasets_.at(id).bytes; }

  HttpResponse send(const HttpRequest& request) override;
  // The answer without any fault.
  HttpResponse answer(const HttpRequest& request);

  static HttpResponse json(int status, const nlohmann::json& body) { return {status, {}, body.dump()}; }
  static HttpResponse problem(int status, const std::string& code, const std::string& message);

 private:
  struct StoredJob {
    nlohmann::json body;
    int looks = 0;
    bool cancel_wanted = false;
  };
  struct StoredDataset {
    std::string id, sha256, bytes;
    uint64_t size = 0;
    bool complete() const { return bytes.size() == size; }
  };

  HttpResponse create_dataset(const HttpRequest& request);
  HttpResponse put_part(const HttpRequest& request, StoredDataset& dataset);
  HttpResponse submit(const HttpRequest& request);
  HttpResponse list(const std::string& query) const;
  HttpResponse about_job(const HttpRequest& request, const std::string& rest, const std::string& query, StoredJob& job);
  HttpResponse file(const HttpRequest& request, const std::string& path) const;
  static nlohmann::json dataset_json(const StoredDataset& dataset, uint64_t part);
  nlohmann::json job_json(const StoredJob& job) const;
  nlohmann::json events_of(const StoredJob& job) const;

  std::vector<StoredJob> jobs_;
  std::map<std::string, size_t> by_key_;
  std::map<std::string, StoredDataset> datasets_;
  std::map<std::string, std::string> dataset_by_key_;
};

// The value of a request's header; "" where it has none.
std::string header_of(const HttpRequest& request, const std::string& name);

}  // namespace gemma_sft
