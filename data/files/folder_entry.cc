#include "data/files/folder_entry.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <system_error>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/utf8.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& place, const std::string& what) {
  throw Error(ErrorKind::kModel, place.string() + ": " + what);
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string_view("/\0", 2)) == name.npos;
}

// How far links may lead: the folder itself, or models--<owner>--<name> above snapshots/<commit>.
fs::path root_of(const fs::path& real_folder) {
  const fs::path snapshots = real_folder.parent_path();
  const fs::path repository = snapshots.parent_path();
  const bool is_cache = snapshots.filename() == "snapshots" && repository.filename().string().starts_with("models--");
  return is_cache ? repository : real_folder;
}

bool is_inside(const fs::path& path, const fs::path& root) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
}

}  // namespace

std::vector<fs::path> list_folder(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  do {
    paths.clear();
    error.clear();
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
      paths.push_back(entry->path());
    }
  } while (error == std::errc::interrupted);
  if (error == std::errc::not_enough_memory) throw std::bad_alloc();
  if (error && error != std::errc::no_such_file_or_directory) throw file_error("list", folder, error.value());
  return paths;
}

bool has_folder_entry(const fs::path& folder, const std::string& name) {
  if (!is_plain_name(name)) fail(folder, fmt::format("{} is not the name of a file", quoted_excerpt(name)));
  const fs::path path = folder / name;
  std::error_code error;
  const fs::file_status own = fs::symlink_status(path, error);
  if (own.type() == fs::file_type::not_found) return false;
  if (error) fail(path, "cannot be looked at: " + error.message());
  if (fs::is_symlink(own)) {
    const fs::path real = fs::canonical(path, error);
    if (error) fail(path, "is a symbolic link that leads nowhere: " + error.message());
    const fs::path root = root_of(fs::canonical(folder, error));
    if (error || !is_inside(real, root)) {
      fail(path,
           fmt::format("is a symbolic link to {}, outside the folder, and is not followed; copy the file into the "
                       "folder, or name the folder that it lies in",
                       real.string()));
    }
  }
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) fail(path, "expected a file, found a folder");
  if (!fs::is_regular_file(status)) fail(path, "expected a file, found a pipe, socket or device");
  return true;
}

}  // namespace gemma_sft
