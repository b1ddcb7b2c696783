#include "data/files/digest_list.h"

#include <fmt/format.h>

#include <algorithm>

#include "configs/error.h"
#include "configs/scalar.h"
#include "data/files/folder_entry.h"
#include "data/files/utf8.h"

namespace gemma_sft {
namespace {

constexpr uint64_t kMaxBytes = 1 << 20;
constexpr size_t kDigits = 64;
constexpr size_t kNameAt = kDigits + 2;
constexpr size_t kMostNameBytes = 255;  // as file systems take

bool is_digest_line(const std::string& line) {
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return line.size() > kNameAt && std::all_of(line.begin(), line.begin() + kDigits, is_digit) && line[kDigits] == ' ' &&
         (line[kDigits + 1] == ' ' || line[kDigits + 1] == '*') &&
         line.find_first_of(std::string_view("/\\\0", 3), kNameAt) == std::string::npos;
}

}  // namespace

void write_digest_list(FileSystem& files, const std::filesystem::path& folder,
                       const std::map<std::string, std::string>& sha256) {
  std::string text;
  for (const auto& [name, digest] : sha256) text += fmt::format("{}  {}\n", digest, name);
  write_new_file(files, folder / kDigestListName, text);
}

std::optional<std::map<std::string, std::string>> find_digest_list(const std::filesystem::path& folder) {
  if (!has_folder_entry(folder, kDigestListName)) return std::nullopt;
  const std::filesystem::path path = folder / kDigestListName;
  const std::string text = read_file(path, kMaxBytes);
  std::map<std::string, std::string> sha256;
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    if (line.ends_with('\r')) line.pop_back();  // a list that went through Windows
    ++number;
    if (!is_digest_line(line)) {
      throw Error(ErrorKind::kModel, fmt::format("{}:{}: {}: expected a SHA-256, two spaces and the name of a file",
                                                 path.string(), number, quoted_excerpt(line)));
    }
    const std::string name = line.substr(kNameAt);
    if (name.size() > kMostNameBytes || without_controls(name, "") != name) {
      throw Error(ErrorKind::kModel,
                  fmt::format("{}:{}: {}: expected the name of a file, at most {} bytes of UTF-8 without control "
                              "characters",
                              path.string(), number, quoted_excerpt(name), kMostNameBytes));
    }
    sha256[name] = line.substr(0, kDigits);
    begin = end + 1;
  }
  return sha256;
}

}  // namespace gemma_sft
