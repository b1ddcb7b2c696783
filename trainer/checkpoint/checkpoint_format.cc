#include "trainer/checkpoint/checkpoint_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/sha256.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kFormatName = "gemma-sft checkpoint";
constexpr const char* kNamePrefix = "checkpoint-";
constexpr uint64_t kMaxManifestBytes = 1 << 20;

// Why a folder is no checkpoint of ours; becomes CheckpointVerdict::problem.
struct Rejected : std::runtime_error {
  using std::runtime_error::runtime_error;
};

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

CheckpointManifest parse_manifest(const std::string& text) {
  const json document = json::parse(text);
  if (document.at("format") != kFormatName) throw Rejected("manifest.json: is not a checkpoint manifest");
  CheckpointManifest manifest;
  manifest.version = document.at("version").get<int>();
  if (manifest.version != kCheckpointVersion) {
    throw Rejected(fmt::format("manifest.json: format version {}, this program reads version {}", manifest.version,
                               kCheckpointVersion));
  }
  manifest.run_id = document.at("run_id").get<std::string>();
  manifest.step = document.at("step").get<int64_t>();
  for (const auto& [name, entry] : document.at("files").items()) {
    if (!is_plain_name(name)) throw Rejected(fmt::format("manifest.json: {} is not a file name", json(name).dump()));
    manifest.files[name] = {entry.at("bytes").get<uint64_t>(), entry.at("sha256").get<std::string>()};
  }
  if (manifest.files.empty()) throw Rejected("manifest.json: names no file");
  return manifest;
}

void check_file(const fs::path& path, const FileDigest& expected) {
  const std::string name = path.filename().string();
  if (!fs::exists(fs::symlink_status(path))) throw Rejected(fmt::format("{}: is missing", name));
  if (!fs::is_regular_file(fs::symlink_status(path))) throw Rejected(fmt::format("{}: is not a plain file", name));
  const uint64_t bytes = fs::file_size(path);
  if (bytes != expected.bytes) {
    throw Rejected(fmt::format("{}: has {} bytes, the manifest says {}", name, bytes, expected.bytes));
  }
  const std::string digest = sha256_file(path);
  if (digest != expected.sha256) {
    throw Rejected(fmt::format("{}: SHA-256 is {}, the manifest says {}", name, digest, expected.sha256));
  }
}

CheckpointManifest verify_or_reject(const fs::path& folder) {
  if (fs::is_symlink(fs::symlink_status(folder))) throw Rejected("is a symbolic link, not a folder");
  if (!fs::is_directory(folder)) throw Rejected("is not a folder");
  const fs::path manifest_path = folder / kCheckpointManifestName;
  if (!fs::exists(manifest_path)) {
    throw Rejected("has no manifest.json: it was not completely written, or is being deleted");
  }
  const CheckpointManifest manifest = parse_manifest(read_file(manifest_path, kMaxManifestBytes));
  if (folder.filename() != checkpoint_name(manifest.step)) {
    throw Rejected(fmt::format("manifest.json: says step {}, the folder's name does not", manifest.step));
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name != kCheckpointManifestName && !manifest.files.contains(name)) {
      throw Rejected(fmt::format("{}: is not named in the manifest", name));
    }
  }
  for (const auto& [name, digest] : manifest.files) check_file(folder / name, digest);
  return manifest;
}

}  // namespace

std::string checkpoint_name(int64_t step) { return kNamePrefix + std::to_string(step); }

std::optional<int64_t> step_of_checkpoint_name(const std::string& name) {
  if (!name.starts_with(kNamePrefix)) return std::nullopt;
  const char* begin = name.data() + std::string_view(kNamePrefix).size();
  const char* end = name.data() + name.size();
  int64_t step = -1;
  const auto [rest, error] = std::from_chars(begin, end, step);
  if (error != std::errc() || rest != end || step < 0 || checkpoint_name(step) != name) return std::nullopt;
  return step;
}

std::string to_json(const CheckpointManifest& manifest) {
  json files = json::object();
  for (const auto& [name, digest] : manifest.files) {
    files[name] = {{"bytes", digest.bytes}, {"sha256", digest.sha256}};
  }
  const json document = {{"format", kFormatName},
                         {"version", manifest.version},
                         {"run_id", manifest.run_id},
                         {"step", manifest.step},
                         {"files", files}};
  return document.dump(2) + "\n";
}

CheckpointVerdict verify_checkpoint(const fs::path& folder) {
  CheckpointVerdict verdict{folder, std::nullopt, {}};
  try {
    verdict.manifest = verify_or_reject(folder);
  } catch (const json::exception& error) {
    verdict.problem = fmt::format("manifest.json: {}", error.what());
  } catch (const std::exception& error) {
    verdict.problem = error.what();
  }
  return verdict;
}

std::vector<CheckpointVerdict> find_checkpoints(const fs::path& run_folder, const std::string& run_id) {
  std::vector<CheckpointVerdict> verdicts;
  std::error_code no_folder;
  for (const fs::directory_entry& entry : fs::directory_iterator(run_folder, no_folder)) {
    if (!step_of_checkpoint_name(entry.path().filename().string())) continue;
    CheckpointVerdict verdict = verify_checkpoint(entry.path());
    if (verdict.manifest && verdict.manifest->run_id != run_id) {
      verdict.problem = fmt::format("belongs to run {}, not to run {}", verdict.manifest->run_id, run_id);
      verdict.manifest.reset();
    }
    verdicts.push_back(std::move(verdict));
  }
  std::sort(verdicts.begin(), verdicts.end(), [](const CheckpointVerdict& a, const CheckpointVerdict& b) {
    if (a.manifest.has_value() != b.manifest.has_value()) return a.manifest.has_value();
    if (a.manifest && a.manifest->step != b.manifest->step) return a.manifest->step > b.manifest->step;
    return a.folder > b.folder;
  });
  return verdicts;
}

}  // namespace gemma_sft
