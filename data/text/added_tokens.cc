#include "data/text/added_tokens.h"

#include <algorithm>
#include <cstdint>

#include "data/files/folder_entry.h"
#include "data/files/input_file.h"
#include "data/files/json_text.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr size_t kHeadBytes = 8 << 20;  // Gemma's 6,400 tokens take 1.3 MB of a tokenizer.json

std::string read_head(const fs::path& file) {
  const InputFile input(file);
  std::string head(std::min<uint64_t>(input.size(), kHeadBytes), '\0');
  head.resize(input.read_some(0, head.data(), head.size()));
  return head;
}

// The array or object that `text` begins with; empty where it does not end.
std::string_view leading_value(std::string_view text) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string) {
      if (c == '\\') ++at;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      ++depth;
    } else if ((c == ']' || c == '}') && --depth == 0) {
      return text.substr(0, at + 1);
    }
  }
  return {};
}

// The list of a tokenizer.json, whose other megabytes need not be read.
std::string_view listed_tokens(std::string_view head) {
  constexpr std::string_view kKey = "\"added_tokens\"";
  const size_t key = head.find(kKey);
  if (key == std::string_view::npos) return {};
  const size_t list = head.find_first_not_of(" \t\r\n:", key + kKey.size());
  return list == std::string_view::npos || head[list] != '[' ? std::string_view() : leading_value(head.substr(list));
}

class Finder {
 public:
  explicit Finder(size_t pieces) : pieces_(static_cast<int64_t>(pieces)) {}

  void look_at(const std::optional<JsonValue>& id, const std::string& text) {
    const auto number = id && id->kind() == JsonKind::kNumber ? id->integer() : std::nullopt;
    if (!number || *number < pieces_ || text == kImageToken) return;
    if (found_.count++ == 0) found_.first = text;
  }

  std::optional<AddedTokens> found_in(const fs::path& file) {
    found_.file = file;
    return found_.count == 0 ? std::nullopt : std::optional(found_);
  }

 private:
  int64_t pieces_;
  AddedTokens found_;
};

}  // namespace

std::optional<AddedTokens> find_added_tokens(const fs::path& folder, size_t pieces) {
  Finder finder(pieces);
  if (has_folder_entry(folder, "tokenizer.json")) {  // [{"id": 256000, "content": "<think>", ...}, ...]
    const std::string head = read_head(folder / "tokenizer.json");
    const std::string_view list = listed_tokens(head);
    if (list.empty() || find_json_problem(list)) return std::nullopt;
    JsonValue(list).each_element([&](const JsonValue& token) {
      const std::optional<JsonValue> text = find_member(token, "content");
      finder.look_at(find_member(token, "id"), text && text->kind() == JsonKind::kString ? text->string() : "");
      return true;
    });
    return finder.found_in(folder / "tokenizer.json");
  }
  if (!has_folder_entry(folder, "added_tokens.json")) return std::nullopt;  // {"<think>": 256000, ...}
  const std::string text = read_head(folder / "added_tokens.json");
  if (find_json_problem(text) || JsonValue(text).kind() != JsonKind::kObject) return std::nullopt;
  JsonValue(text).each_member([&](const JsonMember& member) {
    finder.look_at(member.value, member.name);
    return true;
  });
  return finder.found_in(folder / "added_tokens.json");
}

}  // namespace gemma_sft
