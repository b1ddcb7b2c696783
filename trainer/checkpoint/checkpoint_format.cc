#include "trainer/checkpoint/checkpoint_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "configs/value_reader.h"
#include "data/files/file_system.h"
#include "data/files/folder_entry.h"
#include "data/files/sha256.h"
#include "data/files/utf8.h"
#include "trainer/checkpoint/json_document.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kFormatName = "gemma-sft checkpoint";
constexpr const char* kNamePrefix = "checkpoint-";
constexpr size_t kMostIdBytes = 128;  // as --run-id takes

// Why a folder is no checkpoint of ours; becomes CheckpointVerdict::problem.
struct Rejected : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Names as this program writes them: letters, digits and a few signs.
bool is_plain_name(const std::string& name) {
  const auto is_plain = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || std::strchr("._-+", c); };
  return !name.empty() && name.size() < 200 && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(), [&](char c) { return c != '\0' && is_plain(c); });
}

std::string checked_digest(const std::string& text) {
  if (text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos) return text;
  throw Rejected(fmt::format("manifest.json: {} is not a SHA-256", quoted_excerpt(text, 80)));
}

CheckpointManifest parse_manifest(const json& document) {
  if (document.at("format") != kFormatName) throw Rejected("manifest.json: is not a checkpoint manifest");
  CheckpointManifest manifest;
  const int64_t version = whole_number(document.at("version"), "version", 1);
  if (version != kCheckpointVersion) {
    throw Rejected(
        fmt::format("manifest.json: format version {}, this program reads version {}", version, kCheckpointVersion));
  }
  manifest.version = static_cast<int>(version);
  manifest.run_id = document.at("run_id").get<std::string>();
  manifest.step = whole_number(document.at("step"), "step");
  for (const auto& [name, entry] : document.at("files").items()) {
    if (!is_plain_name(name)) throw Rejected(fmt::format("manifest.json: {} is not a file name", quoted_excerpt(name)));
    const int64_t bytes = whole_number(entry.at("bytes"), "bytes");
    manifest.files[name] = {static_cast<uint64_t>(bytes), checked_digest(entry.at("sha256").get<std::string>())};
  }
  if (manifest.files.empty()) throw Rejected("manifest.json: names no file");
  return manifest;
}

void check_file(const fs::path& path, const FileDigest& expected, const std::function<void()>& before_block) {
  const std::string name = path.filename().string();
  if (!fs::exists(fs::symlink_status(path))) throw Rejected(fmt::format("{}: is missing", name));
  if (!fs::is_regular_file(fs::symlink_status(path))) throw Rejected(fmt::format("{}: is not a plain file", name));
  const uint64_t bytes = fs::file_size(path);
  if (bytes != expected.bytes) {
    throw Rejected(fmt::format("{}: has {} bytes, the manifest says {}", name, bytes, expected.bytes));
  }
  const std::string digest = sha256_file(path, before_block);
  if (digest != expected.sha256) {
    throw Rejected(fmt::format("{}: SHA-256 is {}, the manifest says {}", name, digest, expected.sha256));
  }
}

bool is_lack_of_resources(int error_number) {
  return error_number == ENOMEM || error_number == EMFILE || error_number == ENFILE;
}

CheckpointManifest verify_or_reject(const fs::path& folder, const std::function<void()>& before_block) {
  if (fs::is_symlink(fs::symlink_status(folder))) throw Rejected("is a symbolic link, not a folder");
  if (!fs::is_directory(folder)) throw Rejected("is not a folder");
  const fs::path manifest_path = folder / kCheckpointManifestName;
  if (!fs::exists(fs::symlink_status(manifest_path))) {
    throw Rejected("has no manifest.json: it was not completely written, or is being deleted");
  }
  if (!fs::is_regular_file(fs::symlink_status(manifest_path))) throw Rejected("manifest.json: is not a plain file");
  const CheckpointManifest manifest = parse_manifest(read_json_document(manifest_path));
  if (folder.filename() != checkpoint_name(manifest.step)) {
    throw Rejected(fmt::format("manifest.json: says step {}, the folder's name does not", manifest.step));
  }
  for (const fs::path& path : list_folder(folder)) {
    const std::string name = path.filename().string();
    if (name != kCheckpointManifestName && !manifest.files.contains(name)) {
      throw Rejected(fmt::format("{}: is not named in the manifest", shown_name(name)));
    }
  }
  for (const auto& [name, digest] : manifest.files) check_file(folder / name, digest, before_block);
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

bool is_somebody_elses(const fs::path& path, const std::string& run_id) {
  if (!fs::is_directory(fs::symlink_status(path))) return true;
  const fs::path manifest_path = path / kCheckpointManifestName;
  if (!fs::exists(fs::symlink_status(manifest_path))) return !fs::exists(fs::symlink_status(path / kStateFileName));
  try {
    const json manifest = read_json_document(manifest_path);
    return !manifest.is_object() || manifest.value("format", json()) != kFormatName ||
           manifest.value("version", json()) != kCheckpointVersion || manifest.value("run_id", json()) != run_id;
  } catch (const Error&) {
    return false;  // broken
  }
}

CheckpointVerdict verify_checkpoint(const fs::path& folder, const std::optional<std::string>& run_id,
                                    const std::function<void()>& before_block) {
  CheckpointVerdict verdict{folder, std::nullopt, {}};
  try {
    CheckpointManifest manifest = verify_or_reject(folder, before_block);
    if (run_id && manifest.run_id != *run_id) {
      throw Rejected(
          fmt::format("belongs to run {}, not to run {}", shown_text(manifest.run_id, kMostIdBytes), *run_id));
    }
    verdict.manifest = std::move(manifest);
  } catch (const std::bad_alloc&) {
    throw;  // this says nothing about the checkpoint
  } catch (const json::exception& error) {
    verdict.problem = fmt::format("manifest.json: {}", error.what());
  } catch (const Error& error) {
    if (is_lack_of_resources(error.error_number())) throw;
    verdict.problem = error.what();
  } catch (const fs::filesystem_error& error) {
    if (is_lack_of_resources(error.code().value())) throw file_error("read", folder, error.code().value());
    verdict.problem = error.what();
  } catch (const std::exception& error) {
    verdict.problem = error.what();
  }
  return verdict;
}

std::vector<CheckpointVerdict> find_checkpoints(const fs::path& run_folder, const std::string& run_id,
                                                const std::function<void()>& before_block) {
  std::vector<CheckpointVerdict> verdicts;
  for (const fs::path& path : list_folder(run_folder)) {
    if (!step_of_checkpoint_name(path.filename().string())) continue;
    verdicts.push_back(verify_checkpoint(path, run_id, before_block));
  }
  std::sort(verdicts.begin(), verdicts.end(), [](const CheckpointVerdict& a, const CheckpointVerdict& b) {
    if (a.manifest.has_value() != b.manifest.has_value()) return a.manifest.has_value();
    if (a.manifest && a.manifest->step != b.manifest->step) return a.manifest->step > b.manifest->step;
    return a.folder > b.folder;
  });
  return verdicts;
}

}  // namespace gemma_sft
