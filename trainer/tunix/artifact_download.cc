#include "trainer/tunix/artifact_download.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

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

}  // namespace

void download_artifact(ServiceCaller& caller, const std::string& id, const Artifact& artifact, ArtifactSink& sink) {
  const ServiceCall how{.what = fmt::format("GET /jobs/{}/artifacts/{}", id, caller.text().shown(artifact.path, 200)),
                        .leaves_home = true,
                        .job_id = id};
  std::string etag = fmt::format("\"{}\"", artifact.sha256);
  Retry retry = caller.make_retry();
  uint64_t achieved = sink.size();
  while (sink.size() != artifact.size) {
    const uint64_t offset = sink.size();
    HttpRequest request = caller.make_request(
        HttpMethod::kGet, fmt::format("/jobs/{}/artifacts/{}", id, percent_encoded(artifact.path, "/")));
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
              if (length && parse_header_number(*length) != expected) return false;
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
      const HttpResponse response = caller.send_once(request, how);
      if (another_file) {
        throw Error(ErrorKind::kIo,
                    fmt::format("{}: the file has changed since the list of files was made (its ETag is "
                                "another); start the download again",
                                how.what));
      }
      if (response.status == 416) {
        sink.restart();
        problem = "416";
      } else if (caller.passes(response) && retry.left() > 0) {
        delay = caller.retry_after(response);
        problem = fmt::format("{}", response.status);
      } else if (response.status == 404) {
        caller.fail(response, {.what = how.what});  // it is the file that is not there, not the job
      } else if (response.status != 200 && response.status != 206) {
        caller.fail(response, how);
      } else {
        problem = "the transfer ended early";
      }
    } catch (const TransportFailure& failure) {
      caller.require_passing(failure);
      problem = caller.text().shown(failure.message, 300);
      if (failure.kind == TransportFailure::Kind::kTooLarge) sink.restart();
    }
    if (sink.size() == artifact.size) return;
    if (sink.size() >= achieved + kLeastProgress) {
      achieved = sink.size();
      retry.restart();
    }
    if (!retry.wait(delay)) caller.give_up(problem, retry, how);
  }
}

}  // namespace gemma_sft
