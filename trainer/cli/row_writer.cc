#include "trainer/cli/row_writer.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "configs/error.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

fs::path part_of(const fs::path& path) { return path.string() + ".part"; }

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

// The rename at the end would take the place of a link: what it points at is meant.
fs::path without_links(const std::string& file) {
  std::error_code error;
  if (!fs::is_symlink(fs::symlink_status(file, error))) return file;
  const fs::path target = fs::canonical(file, error);
  if (error) {
    throw Error(ErrorKind::kUsage, fmt::format("--output {}: is a link to a file that does not exist", file));
  }
  return target;
}

// /dev/stdout of a command whose stdout is a file: the new file would take its place, and what else is written there
// would be lost.
bool is_stdout(const fs::path& path) {
  struct stat named {};
  struct stat standard {};
  return ::stat(path.c_str(), &named) == 0 && ::fstat(STDOUT_FILENO, &standard) == 0 &&
         named.st_dev == standard.st_dev && named.st_ino == standard.st_ino;
}

}  // namespace

void RowWriter::require_place(const std::optional<std::string>& file, const std::optional<std::string>& input) {
  if (!file) return;
  if (file->empty()) throw Error(ErrorKind::kUsage, "--output: the file's name is empty");
  std::error_code unknown;  // a name that cannot be looked at is that of no file
  const fs::file_status status = fs::status(*file, unknown);
  if (fs::is_directory(status)) {
    throw Error(ErrorKind::kUsage, fmt::format("--output {}: is a folder, not a file", *file));
  }
  // The complete file is renamed to its name, which would be the end of /dev/null.
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    throw Error(
        ErrorKind::kUsage,
        fmt::format("--output {}: is a pipe, socket or device, not a file; without --output the rows go to stdout",
                    *file));
  }
  if (input && fs::exists(status) && fs::equivalent(*file, *input, unknown)) {
    throw Error(ErrorKind::kUsage, fmt::format("--output {}: is the file that is read; give the rows another", *file));
  }
  if (is_stdout(*file)) {
    throw Error(ErrorKind::kUsage,
                fmt::format("--output {}: is where stdout goes; without --output the rows go there", *file));
  }
  const fs::path folder = folder_of(without_links(*file));
  if (!fs::is_directory(folder, unknown)) {
    throw Error(ErrorKind::kUsage, fmt::format("--output {}: folder not found: {}", *file, folder.string()));
  }
}

RowWriter::RowWriter(const std::optional<std::string>& file, const Output& output, FileSystem& files)
    : output_(output), files_(files) {
  require_place(file);
  if (file) {
    path_ = without_links(*file);
    file_ = files_.create(part_of(path_));
  }
  // A person at a terminal wants each row as it comes.
  most_held_back_ = !file && isatty(STDOUT_FILENO) == 1 ? 0 : 1 << 16;
}

void RowWriter::write(std::string_view line) {
  held_back_ += line;
  if (held_back_.size() > most_held_back_) flush();
}

void RowWriter::flush() {
  if (held_back_.empty()) return;
  if (file_) {
    file_->append(held_back_);
  } else {
    output_.print(held_back_);
  }
  held_back_.clear();
}

void RowWriter::finish_part() {
  flush();
  if (!file_) return;
  file_->sync();
  file_->close();
  file_.reset();
}

void RowWriter::finish() {
  finish_part();
  if (path_.empty()) return;
  files_.rename(part_of(path_), path_);
  files_.sync_directory(folder_of(path_));
}

}  // namespace gemma_sft
