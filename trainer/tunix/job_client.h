// A job service as the rest of the program sees it. Two kinds: MockJobClient, in this process and deterministic, and
// HttpJobClient, which speaks the contract of README.md.
//
// Every method throws Error (ApiError where the service answered with one): kAuthentication, kQuota, kApi, kIo; and
// Interrupted. A call that fails for a while is tried again inside. Not thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "trainer/tunix/job.h"
#include "trainer/tunix/job_spec.h"
#include "trainer/tunix/price_table.h"

namespace gemma_sft {

// A stop signal came while a call waited. Not an Error: nothing is wrong, and the job goes on.
struct Interrupted {};

// Has an earlier attempt perhaps made the job already (a process that was killed, a reply that was lost)?
enum class Attempt { kFirst, kRepeated };

// How a stream of events ended, and the last event that came.
struct EventStreamEnd {
  enum class Why {
    kClosed,       // by the service, or on the way
    kStopped,      // by the caller
    kUnavailable,  // the service streams no events: ask for pages
  };
  Why why = Why::kClosed;
  int64_t last_sequence = 0;
};

// Rows on disk, as they are uploaded: one {id, input_ids, loss_mask} a line.
struct DatasetUpload {
  std::filesystem::path file;
  uint64_t bytes = 0;
  std::string sha256;
  int64_t rows = 0;
  std::string dataset_key;    // of the manifest, or a name made from the file's
  std::string manifest_json;  // the manifest's text; empty: none
};

// Where the bytes of an artifact go. `restart` throws away what was written and begins at 0.
class ArtifactSink {
 public:
  virtual ~ArtifactSink() = default;
  virtual uint64_t size() const = 0;  // bytes so far: where the next transfer goes on
  virtual void restart() = 0;
  virtual void append(std::string_view bytes) = 0;
};

class JobClient {
 public:
  virtual ~JobClient() = default;

  virtual KeyInfo auth_test() = 0;
  virtual Quota quota(const std::string& project_id, const std::string& accelerator, const std::string& region) = 0;
  // What the service has and what it asks for it; speeds are not told.
  virtual PriceTable accelerators() = 0;
  virtual ServiceEstimate estimate_cost(const JobSpec& spec) = 0;
  // Gives the data set's id once the service has every byte and found the digest right.
  virtual std::string upload_dataset(const DatasetUpload& upload, const std::string& project_id,
                                     const std::string& idempotency_key) = 0;
  // One job for one `spec.submission`, however often it is called and whatever gets lost on the way.
  virtual Job submit(const JobSpec& spec, Attempt attempt) = 0;
  virtual Job status(const std::string& id) = 0;
  virtual JobPage list(const JobFilter& filter) = 0;
  virtual EventPage events(const std::string& id, int64_t after) = 0;
  // Events behind `after` as they happen, each once, until `on_event` gives false. One attempt: a stream that breaks is
  // closed, and the next call goes on behind last_sequence.
  virtual EventStreamEnd stream_events(const std::string& id, int64_t after,
                                       const std::function<bool(const JobEvent&)>& on_event) = 0;
  // Asks for the end of a job; of one that has ended, tells how.
  virtual Job cancel(const std::string& id) = 0;
  virtual ArtifactList artifacts(const std::string& id) = 0;
  // The rest of the artifact, from sink.size() on. Returns when all bytes are there; digests are the caller's.
  virtual void download(const std::string& id, const Artifact& artifact, ArtifactSink& sink) = 0;
};

}  // namespace gemma_sft
