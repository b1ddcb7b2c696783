#include "trainer/tunix/artifact_download.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "configs/error.h"

namespace gemma_sft {
namespace {

constexpr uint64_t kLeastProgress = 1'000'000;  // bytes after which the time of a download begins anew
constexpr int64_t kSlowestDownload = 1000;      // bytes a second

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

bool is_strong_tag(const std::string& tag) {
  return tag.size() > 2 && tag.size() < 200 && tag.front() == '"' && tag.back() == '"' &&
         std::all_of(tag.begin(), tag.end(), [](char c) { return c > ' ' && c < 127; });
}

bool is_digest_tag(const std::string& tag) {
  return is_strong_tag(tag) && tag.size() == 66 && tag.find_first_not_of("0123456789abcdef", 1) == 65;
}

// What kept a transfer from the whole file, and how long the service asks to wait.
struct Setback {
  std::string problem;
  std::optional<double> delay = {};
};

// One file on its way into a sink.
class ArtifactTransfer {
 public:
  ArtifactTransfer(ServiceCaller& caller, const std::string& id, const Artifact& artifact, ArtifactSink& sink)
      : caller_(caller),
        artifact_(artifact),
        sink_(sink),
        path_(fmt::format("/jobs/{}/artifacts/{}", id, percent_encoded(artifact.path, "/"))),
        how_{.what = fmt::format("GET /jobs/{}/artifacts/{}", id, caller.text().shown(artifact.path, 200)),
             .leaves_home = true,
             .job_id = id},
        etag_(fmt::format("\"{}\"", artifact.sha256)),
        retry_(caller.make_retry()) {}

  // Again and again until the file is whole or the time is over.
  void complete() {
    uint64_t achieved = sink_.size();
    while (!is_whole()) {
      const Setback setback = attempt();
      if (is_whole()) return;
      if (sink_.size() >= achieved + kLeastProgress) {
        achieved = sink_.size();
        retry_.restart();
      }
      if (!retry_.wait(setback.delay)) caller_.give_up(setback.problem, retry_, how_);
    }
  }

 private:
  bool is_whole() const { return sink_.size() == artifact_.size; }

  // One request for what is missing.
  Setback attempt() {
    const uint64_t offset = sink_.size();
    is_another_file_ = false;
    try {
      return judge(caller_.send_once(make_request(offset), how_));
    } catch (const TransportFailure& failure) {
      caller_.require_passing(failure);
      Setback setback{.problem = caller_.text().shown(failure.message, 300)};
      if (failure.kind == TransportFailure::Kind::kTooLarge) sink_.restart();
      return setback;
    }
  }

  HttpRequest make_request(uint64_t offset) {
    HttpRequest request = caller_.make_request(HttpMethod::kGet, path_);
    request.least_bytes_per_second = kSlowestDownload;
    request.seconds = std::clamp(retry_.left(), 1.0, kCallSeconds);
    if (offset > 0) {
      request.headers.emplace_back("Range", fmt::format("bytes={}-", offset));
      request.headers.emplace_back("If-Range", etag_);
    }
    request.sink = HttpRequest::Sink{.begin = [this, offset](const HttpResponse& head) { return begin(head, offset); },
                                     .append = [this](std::string_view bytes) { append(bytes); }};
    return request;
  }

  // Is the body wanted?
  bool begin(const HttpResponse& head, uint64_t offset) {
    // The service's own tags are digests; those of a storage that it sends us to are what they are.
    const std::string tag = head.find_header("etag").value_or("");
    is_another_file_ = is_digest_tag(tag) && tag.find(artifact_.sha256) == std::string::npos;
    if (is_another_file_) return false;
    if (is_strong_tag(tag)) etag_ = tag;
    // Something else than the file, such as the page of a gateway: nothing of it is used.
    const uint64_t expected = head.status == 206 ? artifact_.size - offset : artifact_.size;
    const auto length = head.find_header("content-length");
    if (length && parse_header_number(*length) != expected) return false;
    if (head.status == 206) {
      const auto range = parse_content_range(head.find_header("content-range").value_or(""));
      if (!range || range->first != offset || range->total != artifact_.size) {
        sink_.restart();  // not what was asked for: nothing of it is used
        return false;
      }
      return true;
    }
    if (offset > 0) sink_.restart();
    return true;
  }

  void append(std::string_view bytes) {
    // After a restart a whole file comes, which may be longer than the rest that was asked for.
    if (sink_.size() + bytes.size() > artifact_.size) {
      throw TransportFailure{TransportFailure::Kind::kTooLarge, "the file is longer than the service said"};
    }
    sink_.append(bytes);
  }

  // What an answer means. Throws where another attempt would get the same one.
  Setback judge(const HttpResponse& response) {
    if (is_another_file_) {
      throw Error(ErrorKind::kIo, fmt::format("{}: the file has changed since the list of files was made (its ETag is "
                                              "another); start the download again",
                                              how_.what));
    }
    if (response.status == 416) {
      sink_.restart();
      return {.problem = "416"};
    }
    if (caller_.passes(response) && retry_.left() > 0) {
      return {.problem = fmt::format("{}", response.status), .delay = caller_.retry_after(response)};
    }
    if (response.status == 404) {
      caller_.fail(response, {.what = how_.what});  // it is the file that is not there, not the job
    }
    if (response.status != 200 && response.status != 206) caller_.fail(response, how_);
    return {.problem = "the transfer ended early"};
  }

  ServiceCaller& caller_;
  const Artifact& artifact_;
  ArtifactSink& sink_;
  std::string path_;
  ServiceCall how_;
  std::string etag_;  // of what the sink holds a part of
  Retry retry_;
  bool is_another_file_ = false;  // than the list of files says: by the tag of the last answer
};

}  // namespace

void download_artifact(ServiceCaller& caller, const std::string& id, const Artifact& artifact, ArtifactSink& sink) {
  ArtifactTransfer(caller, id, artifact, sink).complete();
}

}  // namespace gemma_sft
