#include "trainer/run/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "configs/secrets.h"
#include "configs/value_reader.h"
#include "data/files/sha256.h"
#include "trainer/run/run_manifest.h"
#include "trainer/run/samples_file.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLockName = "run.lock";

// A folder that a run may take as its own: absent, or without any entry.
bool is_free(const fs::path& folder) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(folder, error);
  if (!fs::exists(status)) return true;
  return fs::is_directory(folder, error) && fs::is_empty(folder, error) && !error;
}

void require_run_id(const std::string& id) {
  const bool clean =
      !id.empty() && id.size() <= 128 &&
      id.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == std::string::npos;
  if (!clean) {
    throw Error(ErrorKind::kUsage, "--run-id: \"" + id +
                                       "\" cannot be part of a folder's name; use 1 to 128 letters, digits, '.', '_' "
                                       "and '-'");
  }
  if (holds_secret(id)) throw Error(ErrorKind::kUsage, "--run-id: looks like a secret, and would be a folder's name");
}

std::string host_name() {
  char name[256] = "unknown host";
  if (gethostname(name, sizeof(name)) != 0) return "unknown host";
  name[sizeof(name) - 1] = '\0';
  return name;
}

constexpr const char* kUnknownOwner = "another process";

std::string describe_owner(const fs::path& lock) {
  constexpr size_t kMostBytes = 300;
  std::ifstream stream(lock);
  std::string line(kMostBytes, '\0');  // no more is read: the file may be anybody's
  stream.read(line.data(), static_cast<std::streamsize>(line.size()));
  line.resize(static_cast<size_t>(stream.gcount()));
  line.resize(std::min(line.find('\n'), line.size()));
  return line.empty() ? kUnknownOwner : shown_text(line, kMostBytes);
}

void close_descriptor(int& descriptor) {
  if (descriptor >= 0) close(descriptor);
  descriptor = -1;
}

int open_to_lock(const fs::path& path) {
  int descriptor = -1;
  do {
    descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) throw file_error("open", path, errno);
  return descriptor;
}

// The owner writes who it is when it has the lock, which is a moment later.
std::string wait_for_owner(const fs::path& lock) {
  std::string owner = describe_owner(lock);
  for (int i = 0; i < 20 && owner == kUnknownOwner; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    owner = describe_owner(lock);
  }
  return owner;
}

void lock_or_refuse(int descriptor, const fs::path& path) {
  int result = 0;
  do {
    result = flock(descriptor, LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return;
  if (errno != EWOULDBLOCK) throw file_error("lock", path, errno);
  throw Error(ErrorKind::kUsage, path.parent_path().string() + ": in use by " + wait_for_owner(path) +
                                     "; wait for it or stop it, or give this run another --run-id or --output");
}

}  // namespace

std::string default_run_id(const RunConfig& config) { return sha256_hex(identity_yaml(config)).substr(0, 12); }

std::optional<std::string> find_run_id(const fs::path& folder) {
  try {
    const std::optional<std::string> id = find_in_run_manifest(folder, "run_id");
    if (id) require_run_id(*id);
    return id;
  } catch (const Error&) {
    return std::nullopt;  // not what a run writes
  }
}

RunPlace resolve_run_place(const RunConfig& config, const PlaceRequest& request) {
  if (request.run_id) require_run_id(*request.run_id);
  RunPlace place;
  place.id = request.run_id ? *request.run_id : default_run_id(config);
  if (request.exact_folder) {
    if (request.exact_folder->empty()) throw Error(ErrorKind::kUsage, "--output: the folder's name is empty");
    place.folder = *request.exact_folder;
    place.is_exact = true;
    if (request.resume == ResumeMode::kNever && !is_free(place.folder)) {
      throw Error(ErrorKind::kUsage, place.folder.string() +
                                         ": --resume never needs a folder that is absent or empty; give another "
                                         "--output, or --resume auto to continue this one");
    }
    if (!request.run_id) place.id = find_run_id(place.folder).value_or(place.id);
    return place;
  }
  const fs::path parent = config.output.run_dir;
  place.folder = parent / ("run_" + place.id);
  if (request.resume == ResumeMode::kNever) {
    const std::string first = place.id;
    for (int64_t suffix = 2; !is_free(place.folder); ++suffix) {
      place.id = first + "-" + std::to_string(suffix);
      place.folder = parent / ("run_" + place.id);
    }
  }
  return place;
}

void require_own_folder(const fs::path& folder) {
  const auto has = [&](const char* name) { return fs::exists(fs::symlink_status(folder / name)); };
  if (has("state.json") && has("manifest.json")) {
    throw Error(ErrorKind::kUsage, folder.string() +
                                       ": is a checkpoint; --resume names the one to continue from, and --output the "
                                       "folder of a run");
  }
  for (const char* name : {kLockName, kRunManifestName}) {
    if (has(name)) return;
  }
  for (const char* name : {kMetricsName, kSamplesName, "config.yaml", "data_report.json", "final_model"}) {
    if (!has(name)) continue;
    throw Error(ErrorKind::kUsage, (folder / name).string() +
                                       ": is there, and no run made it; a run here would write over it. Give another "
                                       "--output, or move it away");
  }
}

std::string describe_new_start(const RunPlace& place) {
  return place.is_exact ? "start anew with another --output" : "start anew with --resume never or in another folder";
}

RunLock::RunLock(const fs::path& folder, FileSystem& files) : path_(folder / kLockName) {
  files.make_directories(folder);
  try {
    do {
      close_descriptor(descriptor_);
      files.open_append(path_)->close();  // creates it
      descriptor_ = open_to_lock(path_);
      lock_or_refuse(descriptor_, path_);
    } while (!is_held());  // removed since it was opened
    // The kernel drops the lock with its process, so whoever holds it is alive; the text only tells who that is.
    files.truncate(path_, 0);
    const std::unique_ptr<WritableFile> file = files.open_append(path_);
    file->append(fmt::format("process {} on {} since {}\n", getpid(), host_name(), utc_timestamp()));
    file->close();
  } catch (...) {
    close_descriptor(descriptor_);
    throw;
  }
}

RunLock::~RunLock() { close_descriptor(descriptor_); }

bool RunLock::is_held() const {
  struct stat locked, named;
  return fstat(descriptor_, &locked) == 0 && lstat(path_.c_str(), &named) == 0 && locked.st_dev == named.st_dev &&
         locked.st_ino == named.st_ino;
}

void RunLock::require_held() const {
  if (is_held()) return;
  throw Error(ErrorKind::kIo, path_.string() +
                                  ": was removed or replaced while this run went on, so that another may have begun "
                                  "in its folder; this one ends here and leaves the folder alone");
}
namespace {

void append(StepRows& rows, const nlohmann::ordered_json& row) { rows.append(row.dump()); }

}  // namespace

void MetricsFile::on_step(const StepRecord& record) {
  append(rows_, {{"step", record.step},
                 {"epoch", record.epoch},
                 {"loss", record.loss},
                 {"learning_rate", record.learning_rate},
                 {"grad_norm", record.grad_norm},
                 {"tokens", record.tokens},
                 {"target_tokens", record.target_tokens},
                 {"tokens_per_second", record.tokens_per_second},
                 {"step_seconds", record.step_seconds},
                 {"data_wait_seconds", record.data_wait_seconds},
                 {"peak_memory_bytes", record.peak_memory_bytes},
                 {"timestamp", utc_timestamp()},
                 {"device", record.device}});
}

void MetricsFile::on_eval(const EvalRecord& record) {
  append(rows_, {{"step", record.step},
                 {"epoch", record.epoch},
                 {"eval_loss", record.eval_loss},
                 {"eval_tokens", record.eval_tokens},
                 {"eval_seconds", record.eval_seconds},
                 {"best", record.best},
                 {"timestamp", utc_timestamp()}});
}

}  // namespace gemma_sft
