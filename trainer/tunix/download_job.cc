#include "trainer/tunix/download_job.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "data/files/sha256.h"
#include "data/files/utf8.h"
#include "trainer/run/utf8_json.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kListName = "artifacts.json";
constexpr size_t kDeepest = 16;

// Appends to one file. Opened late, so that a transfer of nothing makes nothing.
class FileSink : public ArtifactSink {
 public:
  FileSink(fs::path path, FileSystem& files) : path_(std::move(path)), files_(files) {
    std::error_code error;
    const fs::file_status status = fs::symlink_status(path_, error);
    if (!fs::exists(status)) return;
    if (fs::is_regular_file(status) && fs::hard_link_count(path_, error) == 1 && !error) {
      size_ = fs::file_size(path_, error);
    } else {
      files_.remove(path_);  // a link or a pipe: what is written to it would land elsewhere
    }
    if (error) size_ = 0;
  }
  uint64_t size() const override { return size_; }
  void restart() override {
    file_.reset();
    size_ = 0;
    files_.remove(path_);
  }
  void append(std::string_view bytes) override {
    if (!file_) file_ = files_.open_append(path_);
    file_->append(bytes);
    size_ += bytes.size();
  }
  void finish() {
    if (!file_) file_ = files_.open_append(path_);  // an empty file, or one that an earlier attempt completed
    file_->sync();
    file_->close();
    file_.reset();
  }

 private:
  fs::path path_;
  FileSystem& files_;
  std::unique_ptr<WritableFile> file_;
  uint64_t size_ = 0;
};

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

// A link that somebody put where we are about to write would lead elsewhere.
void require_plain_folder(const fs::path& folder) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(folder, error);
  if (!fs::exists(status) || fs::is_directory(status)) return;
  throw Error(ErrorKind::kIo, fmt::format("{}: expected a folder, found a link or a file; remove it", folder.string()));
}

// `folder` becomes one that nobody else can put a link into. One that others could write to until now is emptied.
void make_private(const fs::path& folder, FileSystem& files) {
  for (int attempt = 1;; ++attempt) {
    files.make_directories(folder);
    const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status {};
    const bool read = descriptor >= 0 && fstat(descriptor, &status) == 0;
    const bool is_ours = read && status.st_uid == geteuid();
    const bool was_open = read && (status.st_mode & 022) != 0;
    if (is_ours) fchmod(descriptor, 0700);
    if (descriptor >= 0) close(descriptor);
    if (!is_ours) {
      throw Error(
          ErrorKind::kIo,
          fmt::format("{}: expected a folder of this user's, found another's or a link; remove it", folder.string()));
    }
    if (!was_open || attempt == 2) return;
    files.remove_tree(folder);
  }
}

void require_usable(const std::vector<Artifact>& artifacts) {
  std::map<std::string, std::string> seen;  // in lower case -> as it is
  std::set<std::string> folders;
  for (const Artifact& artifact : artifacts) {
    const std::string problem = artifact_path_problem(artifact.path);
    if (!problem.empty()) {
      throw Error(ErrorKind::kIo, fmt::format("the service names a file {}: {}; nothing was downloaded",
                                              quoted_excerpt(artifact.path), problem));
    }
    const std::string folded = lower(artifact.path);
    if (!seen.emplace(folded, artifact.path).second) {
      throw Error(ErrorKind::kIo, fmt::format("the service names two files that are one on some disks: {}; nothing was "
                                              "downloaded",
                                              quoted_excerpt(artifact.path)));
    }
    for (size_t slash = folded.find('/'); slash != std::string::npos; slash = folded.find('/', slash + 1)) {
      folders.insert(folded.substr(0, slash));
    }
  }
  for (const std::string& folder : folders) {
    if (seen.contains(folder)) {
      throw Error(ErrorKind::kIo, fmt::format("the service names {} as a file and as a folder; nothing was downloaded",
                                              quoted_excerpt(folder)));
    }
  }
}

std::string list_text(const std::string& id, const std::vector<Artifact>& artifacts) {
  Json list = Json::array();
  for (const Artifact& artifact : artifacts) {
    list.push_back(
        {{"path", artifact.path}, {"kind", artifact.kind}, {"size", artifact.size}, {"sha256", artifact.sha256}});
  }
  return utf8_json(Json{{"job_id", id}, {"artifacts", list}}, 2) + "\n";
}

// Does `folder` hold exactly what would be downloaded?
bool holds_all(const fs::path& folder, const std::string& list, const std::vector<Artifact>& artifacts) {
  std::error_code error;
  if (!fs::is_regular_file(fs::symlink_status(folder / kListName, error)) ||
      read_file(folder / kListName, 64 << 20) != list)
    return false;
  return std::all_of(artifacts.begin(), artifacts.end(), [&](const Artifact& artifact) {
    fs::path file = folder;
    for (const fs::path& part : fs::path(artifact.path)) {
      file /= part;
      if (fs::is_symlink(fs::symlink_status(file, error))) return false;
    }
    return fs::is_regular_file(fs::symlink_status(file, error)) && fs::file_size(file, error) == artifact.size &&
           sha256_file(file) == artifact.sha256;
  });
}

// The file under its digest's name, whole and right.
fs::path fetch(JobClient& client, const std::string& id, const Artifact& artifact, const fs::path& folder,
               FileSystem& files) {
  const fs::path part = folder / (artifact.sha256 + ".part");
  for (int attempt = 1;; ++attempt) {
    FileSink sink(part, files);
    if (sink.size() > artifact.size) sink.restart();
    client.download(id, artifact, sink);
    sink.finish();
    const std::string found = sha256_file(part);
    if (found == artifact.sha256) return part;
    files.remove(part);
    if (attempt == 2) {
      throw Error(ErrorKind::kIo,
                  fmt::format("{}: {}: expected SHA-256 {}, received {} twice; the file is broken at the service", id,
                              artifact.path, artifact.sha256, found));
    }
  }
}

}  // namespace

std::string artifact_path_problem(std::string_view path) {
  if (path.empty()) return "it is empty";
  if (path.size() > 1024) return "it is longer than 1024 bytes";
  if (find_utf8_problem(path)) return "it is not UTF-8";
  if (path[0] == '/') return "it is absolute";
  if (path.find('\\') != std::string_view::npos) return "it holds a backslash";
  if (path.size() > 1 && path[1] == ':') return "it names a drive";
  for (const char c : path) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return "it holds a control character";
  }
  size_t parts = 0;
  for (size_t from = 0; from <= path.size();) {
    const size_t slash = std::min(path.find('/', from), path.size());
    const std::string_view part = path.substr(from, slash - from);
    if (part.empty() || part == "." || part == "..") return "it holds an empty name, \".\" or \"..\"";
    if (part.size() > 255) return "it holds a name longer than 255 bytes";
    if (++parts > kDeepest) return "it is too deep";
    from = slash + 1;
  }
  if (path == kListName) return "that name is taken by the list of files";
  return "";
}

DownloadResult download_job(JobClient& client, const std::string& id, const fs::path& destination, FileSystem& files) {
  const fs::path folder = plain_path(destination);
  DownloadResult result;
  result.folder = destination;
  for (Artifact& artifact : client.artifacts(id).artifacts) {
    if (artifact.kind == "checkpoint") continue;
    result.bytes += artifact.size;
    result.artifacts.push_back(std::move(artifact));
  }
  require_usable(result.artifacts);
  if (std::none_of(result.artifacts.begin(), result.artifacts.end(),
                   [](const Artifact& artifact) { return artifact.kind == "final_model"; })) {
    throw Error(ErrorKind::kJobFailed,
                fmt::format("{}: the service has no final model of it; nothing was downloaded", id));
  }
  const std::string list = list_text(id, result.artifacts);
  std::error_code error;
  if (fs::exists(fs::symlink_status(folder, error))) {
    require_plain_folder(folder);
    if (!fs::is_empty(folder, error)) {
      if (holds_all(folder, list, result.artifacts)) {
        result.was_there = true;
        return result;
      }
      throw Error(ErrorKind::kIo, fmt::format("{}: holds something else than the files of {}; give a new folder, or "
                                              "remove it first",
                                              folder.string(), id));
    }
  }
  fs::path partial = folder;
  partial += ".partial";
  require_plain_folder(partial);
  make_private(partial, files);
  const fs::path parts = partial / "parts";
  const fs::path whole = partial / "whole";
  require_plain_folder(parts);
  require_plain_folder(whole);
  files.make_directories(parts);
  files.remove_tree(whole);  // of an attempt that was cut off while it put the files in their places
  files.make_directories(whole);

  uint64_t missing = result.bytes;
  for (const Artifact& artifact : result.artifacts) {
    const fs::path part = parts / (artifact.sha256 + ".part");
    if (fs::is_regular_file(fs::symlink_status(part, error))) {
      missing -= std::min<uint64_t>({missing, artifact.size, fs::file_size(part, error)});
    }
  }
  files.require_space(partial, missing);

  for (const Artifact& artifact : result.artifacts) fetch(client, id, artifact, parts, files);
  std::set<fs::path> made;
  std::map<std::string, fs::path> placed;  // a digest that several files share is fetched once and copied
  for (const Artifact& artifact : result.artifacts) {
    const fs::path target = whole / artifact.path;
    files.make_directories(target.parent_path());
    made.insert(target.parent_path());
    if (const auto twin = placed.find(artifact.sha256); twin != placed.end()) {
      write_new_file(files, target, read_file(twin->second));
    } else {
      files.rename(parts / (artifact.sha256 + ".part"), target);
      placed[artifact.sha256] = target;
    }
  }
  write_file_durably(files, whole / kListName, list);
  for (const fs::path& directory : made) files.sync_directory(directory);
  files.make_directories(folder.parent_path());
  files.rename(whole, folder);
  files.sync_directory(folder.parent_path());
  files.remove_tree(partial);
  return result;
}

}  // namespace gemma_sft
