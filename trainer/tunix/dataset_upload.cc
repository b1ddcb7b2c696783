#include "trainer/tunix/dataset_upload.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/files/input_file.h"
#include "trainer/tunix/service_json.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kPartSeconds = 120;
constexpr uint64_t kPartBytes = 4'000'000;

uint64_t uploaded_bytes(ServiceCaller& caller, const std::string& path) {
  uint64_t offset = 0;
  caller.call(caller.make_request(HttpMethod::kHead, path),
              {.what = "HEAD /datasets/.../content", .accept = [&](const auto& answer) {
                 const auto known = parse_header_number(answer.find_header("upload-offset").value_or(""));
                 if (!known) throw Unreadable{"\"Upload-Offset\" is missing"};
                 offset = *known;
               }});
  return offset;
}

}  // namespace

std::string upload_dataset(ServiceCaller& caller, const DatasetUpload& upload, const std::string& project_id,
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
  HttpRequest create = caller.make_request(HttpMethod::kPost, "/datasets");
  create.headers.emplace_back("Content-Type", "application/json");
  create.headers.emplace_back("Idempotency-Key", idempotency_key);
  create.body = body.dump();
  DatasetState dataset;
  const auto accept = [&](const HttpResponse& answer) { dataset = parse_dataset(answer.body, caller.text()); };
  caller.call(create, {.what = "POST /datasets", .accept = accept});

  const std::string path = "/datasets/" + dataset.id;
  const uint64_t part_bytes = std::clamp<uint64_t>(dataset.max_part_bytes, 1, kPartBytes);
  const InputFile file(upload.file);
  Retry retry = caller.make_retry();
  uint64_t sent = 0;
  bool begun = false;
  while (dataset.state == "awaiting_upload") {
    const uint64_t offset = uploaded_bytes(caller, path + "/content");
    if (offset > upload.bytes) {
      throw Error(ErrorKind::kApi,
                  fmt::format("HEAD {}/content: the service says it has {} bytes of {}", path, offset, upload.bytes));
    }
    if (offset > sent) retry.restart();
    if (offset == upload.bytes || (begun && offset <= sent)) {  // it is checking, or a part got lost
      if (!retry.wait(std::nullopt))
        caller.give_up("the data set does not become ready", retry, {.what = "PUT " + path});
      caller.call(caller.make_request(HttpMethod::kGet, path), {.what = "GET " + path, .accept = accept});
      if (offset == upload.bytes) continue;
    }
    if (dataset.state != "awaiting_upload") break;
    sent = offset;
    begun = true;
    std::string part(std::min(part_bytes, upload.bytes - offset), '\0');
    if (file.read_some(offset, part.data(), part.size()) != part.size()) {
      throw Error(ErrorKind::kIo, fmt::format("{}: shorter than it was; start again", upload.file.string()));
    }
    HttpRequest put = caller.make_request(HttpMethod::kPut, path + "/content");
    put.headers.emplace_back("Content-Type", "application/octet-stream");
    put.headers.emplace_back("Content-Range",
                             fmt::format("bytes {}-{}/{}", offset, offset + part.size() - 1, upload.bytes));
    put.body = std::move(part);
    put.seconds = std::clamp(retry.left(), 1.0, kPartSeconds);
    try {
      const HttpResponse answer = caller.send_once(put, {.what = "PUT " + path + "/content"});
      if (answer.status >= 300 && answer.status != 409 && answer.status != 416 && !caller.passes(answer)) {
        caller.fail(answer, {.what = "PUT " + path + "/content"});
      }
    } catch (const TransportFailure& failure) {  // HEAD tells how far it came
      caller.require_passing(failure);
    }
    caller.call(caller.make_request(HttpMethod::kGet, path), {.what = "GET " + path, .accept = accept});
  }
  if (dataset.state != "ready") {
    throw Error(ErrorKind::kData,
                fmt::format("{}: the service does not accept the rows: {}", upload.file.string(),
                            dataset.problems.empty() ? caller.text().shown(dataset.state, 64) : dataset.problems));
  }
  return dataset.id;
}

}  // namespace gemma_sft
