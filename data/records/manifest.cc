#include "data/records/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "configs/error.h"
#include "configs/load_config.h"
#include "data/files/file_system.h"
#include "data/files/json_text.h"
#include "data/files/sha256.h"
#include "data/files/utf8.h"

namespace gemma_sft {
namespace {

constexpr size_t kMaxKeptProblems = 1000;  // the rest is counted
constexpr size_t kMaxShownProblems = 20;
constexpr size_t kMaxMembers = 10'000;  // of all objects that are open at one moment

// The request that builds the data set whose manifest lies at `path`: the folder is named <name>-<version>. Names that
// a shell would read in another way are not offered.
std::string build_request(const std::filesystem::path& path) {
  static const std::regex kKey(R"(([A-Za-z0-9._-]{1,128})-([A-Za-z0-9._]{1,64}))");
  const std::string key = path.parent_path().filename().string();
  std::smatch parts;
  const bool is_key = key.size() < 200 && std::regex_match(key, parts, kKey);
  return fmt::format(R"({{"dataset_name":"{}","dataset_version":"{}","limit":10}})", is_key ? parts[1].str() : "test",
                     is_key ? parts[2].str() : "v1");
}

std::string build_remedy(const std::filesystem::path& path) {
  const std::string request = build_request(path);
  return fmt::format(
      "build the data set: POST /api/datasets/build {0}\n"
      "  curl -X POST http://localhost:8000/api/datasets/build -H 'Content-Type: application/json' -d '{0}'\n"
      "or correct dataset.manifest_path",
      request);
}

std::string read_manifest_text(const std::filesystem::path& path, const std::string& configured_path) {
  std::error_code error;
  if (std::filesystem::status(path, error).type() == std::filesystem::file_type::not_found) {
    throw Error(ErrorKind::kData, fmt::format("Manifest not found: {}; {}", configured_path, build_remedy(path)));
  }
  try {
    return read_file(path, kMaxManifestBytes);
  } catch (const Error& problem) {
    throw Error(ErrorKind::kData, problem.what());
  }
}

bool is_uuid(const std::string& text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (is_dash ? text[i] != '-' : std::string_view("0123456789abcdefABCDEF").find(text[i]) == std::string_view::npos) {
      return false;
    }
  }
  return true;
}

bool is_iso_time(const std::string& text) {
  static const std::regex kForm(R"(\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?)");
  return text.size() < 64 && std::regex_match(text, kForm);
}

enum class Presence { kRequired, kOptional };

// Reads the fields and collects what is wrong (problems) or merely unknown (warnings) with its place.
class ManifestReader {
 public:
  ManifestReader(const std::filesystem::path& path, std::string text) : path_(path), text_(std::move(text)) {}

  Manifest read() {
    if (text_.starts_with("\xef\xbb\xbf")) {
      add_problem(0, "manifest: expected JSON text, found a byte order mark (ef bb bf); save the file without it");
      throw_problems();
    }
    if (is_file_of_rows()) {
      throw Error(ErrorKind::kData,
                  fmt::format("{}: is a file of rows, one JSON object a line, and no manifest; name it as "
                              "dataset.data_path",
                              path_.string()));
    }
    if (const auto problem = find_json_problem(text_, {.max_members = kMaxMembers})) {
      add_problem(problem->byte, fmt::format("manifest: expected {}, found {}", problem->expected, problem->found));
      throw_problems();
    }
    const JsonValue root(text_);
    if (root.kind() != JsonKind::kObject) {
      add_problem(root.byte(), "manifest: expected an object, found " + root.description());
      throw_problems();
    }
    root.each_member([this](const JsonMember& member) {
      fields_.emplace(member.name, member);
      return true;
    });
    root_byte_ = root.byte();

    Manifest manifest;
    manifest.path = path_;
    manifest.dataset_key = read_text("dataset_key", Presence::kRequired).value_or("");
    check_names(manifest.dataset_key);
    const auto count = read_whole("trace_count", Presence::kRequired);
    manifest.trace_count = count.value_or(0);
    manifest.trace_ids = read_trace_ids();
    check_counts(count);
    check_known_values();
    for (const char* field : {"filters", "provenance"}) check_kind(field, JsonKind::kObject, "an object");
    for (const char* field : {"session_id", "parent_dataset_id", "training_run_id"}) {
      check_kind(field, JsonKind::kString, "a string or null");
    }
    warn_unknown_fields();
    if (!problems_.empty()) throw_problems();
    std::stable_sort(warnings_.begin(), warnings_.end(), by_byte);
    for (size_t i = 0; i < std::min(warnings_.size(), kMaxShownProblems); ++i) {
      manifest.warnings.push_back(place_text(warnings_[i].byte) + warnings_[i].text);
    }
    if (warnings_.size() > kMaxShownProblems) {
      manifest.warnings.push_back(
          fmt::format("{}: and {} more of this kind", path_.string(), warnings_.size() - kMaxShownProblems));
    }
    return manifest;
  }

 private:
  // Two lines that each are a JSON object.
  bool is_file_of_rows() const {
    const size_t first = text_.find('\n');
    if (first == std::string::npos) return false;
    const size_t second = std::min(text_.find('\n', first + 1), text_.size());
    for (const std::string_view line :
         {std::string_view(text_).substr(0, first), std::string_view(text_).substr(first + 1, second - first - 1)}) {
      if (!line.starts_with('{') || find_json_problem(line, {.max_members = kMaxMembers})) return false;
    }
    return true;
  }

  struct Note {
    size_t byte;
    std::string text;
  };
  static bool by_byte(const Note& a, const Note& b) { return a.byte < b.byte; }

  // "path:line:column: "
  std::string place_text(size_t byte) const {
    const std::string_view before = std::string_view(text_).substr(0, byte);
    const size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0
    return fmt::format("{}:{}:{}: ", path_.string(), std::count(before.begin(), before.end(), '\n') + 1,
                       byte - line_start + 1);
  }

  void add_problem(size_t byte, std::string text) {
    if (++problem_count_ <= kMaxKeptProblems) problems_.push_back({byte, std::move(text)});
  }
  void add_warning(size_t byte, std::string text) { warnings_.push_back({byte, std::move(text)}); }

  void add_problem(const JsonValue& value, const std::string& field, const std::string& expected) {
    add_problem(value.byte(), fmt::format("{}: expected {}, found {}", field, expected, value.description()));
  }

  [[noreturn]] void throw_problems() {
    std::stable_sort(problems_.begin(), problems_.end(), by_byte);
    std::string message;
    for (size_t i = 0; i < std::min(problems_.size(), kMaxShownProblems); ++i) {
      message += place_text(problems_[i].byte) + problems_[i].text + "\n";
    }
    if (problem_count_ > kMaxShownProblems) {
      message += fmt::format("and {} more\n", problem_count_ - kMaxShownProblems);
    }
    throw Error(ErrorKind::kData, message + "correct the manifest or " + build_remedy(path_));
  }

  // nullptr when absent (then a problem where it is required) or null where that is allowed.
  const JsonValue* find(const std::string& field, Presence presence) {
    const auto found = fields_.find(field);
    if (found == fields_.end()) {
      if (presence == Presence::kRequired) {
        add_problem(root_byte_, fmt::format("{}: expected in every manifest, found no such field", field));
      }
      return nullptr;
    }
    const JsonValue& value = found->second.value;
    return presence == Presence::kOptional && value.kind() == JsonKind::kNull ? nullptr : &value;
  }

  std::optional<std::string> read_text(const std::string& field, Presence presence) {
    const JsonValue* value = find(field, presence);
    if (!value) return std::nullopt;
    if (value->kind() == JsonKind::kString && value->string() != "") return value->string();
    add_problem(*value, field, "a non-empty string");
    return std::nullopt;
  }

  std::optional<int64_t> read_whole(const std::string& field, Presence presence) {
    const JsonValue* value = find(field, presence);
    if (!value) return std::nullopt;
    return read_whole(*value, field);
  }

  std::optional<int64_t> read_whole(const JsonValue& value, const std::string& field) {
    const auto number = value.kind() == JsonKind::kNumber ? value.integer() : std::nullopt;
    if (number && *number >= 0) return number;
    add_problem(value, field, "a whole number from 0 on");
    return std::nullopt;
  }

  void check_kind(const std::string& field, JsonKind kind, const std::string& expected) {
    const JsonValue* value = find(field, Presence::kOptional);
    if (value && value->kind() != kind) add_problem(*value, field, expected);
  }

  size_t byte_of(const std::string& field) const { return fields_.at(field).value.byte(); }

  std::vector<std::string> read_trace_ids() {
    std::vector<std::string> ids;
    const JsonValue* value = find("trace_ids", Presence::kRequired);
    if (!value) return ids;
    if (value->kind() != JsonKind::kArray) {
      add_problem(*value, "trace_ids", "an array of strings");
      return ids;
    }
    std::unordered_set<std::string> seen;
    size_t others = 0;
    size_t first_other = 0;
    value->each_element([&](const JsonValue& element) {
      const int64_t index = id_count_++;
      const bool is_kept = problem_count_ < kMaxKeptProblems;  // millions are counted, and put into no words
      std::string id = element.kind() == JsonKind::kString ? element.string() : std::string();
      if (id.empty()) {
        if (!is_kept) {
          ++problem_count_;
        } else {
          add_problem(element, fmt::format("trace_ids[{}]", index), "a non-empty string");
        }
      } else {
        if (!seen.insert(id).second) {
          if (!is_kept) {
            ++problem_count_;
          } else {
            add_problem(element.byte(),
                        fmt::format("trace_ids[{}]: expected each id once, found {} again", index, quoted_excerpt(id)));
          }
        }
        if (!is_uuid(id) && others++ == 0) first_other = element.byte();
        if (problem_count_ < kMaxKeptProblems) ids.push_back(std::move(id));
      }
      return true;
    });
    if (others > 0) add_warning(first_other, fmt::format("trace_ids: {} of {} are not UUIDs", others, id_count_));
    return ids;
  }

  void check_counts(const std::optional<int64_t>& count) {
    if (count && fields_.count("trace_ids")) {
      if (id_count_ > 0 && id_count_ != *count) {
        add_problem(byte_of("trace_count"),
                    fmt::format("trace_count: expected {}, the number of trace_ids, found {}", id_count_, *count));
      }
      if (id_count_ == 0 && *count > 0) {
        add_warning(byte_of("trace_ids"), "trace_ids: empty; the rows can only come from a file");
      }
    }
    if (count && *count == 0) add_warning(byte_of("trace_count"), "trace_count: 0, the data set is empty");
    check_inner_count("stats", count, &ManifestReader::add_problem);
    // User keys override the builder's own in provenance, so a number there may mean something else.
    check_inner_count("provenance", count, &ManifestReader::add_warning);
  }

  void check_inner_count(const std::string& field, const std::optional<int64_t>& count,
                         void (ManifestReader::*add)(size_t, std::string)) {
    const JsonValue* value = find(field, Presence::kOptional);
    if (!value) return;
    if (value->kind() != JsonKind::kObject) {
      if (field == "stats") add_problem(*value, field, "an object");
      return;
    }
    value->each_member([&](const JsonMember& member) {
      if (member.name != "trace_count") return true;
      const std::string path = field + ".trace_count";
      // A number that agrees with the ids is right: then trace_count alone is wrong, and that is said already.
      const auto inner = member.value.kind() == JsonKind::kNumber ? member.value.integer() : std::nullopt;
      if (!inner || *inner < 0) {
        (this->*add)(member.value.byte(),
                     fmt::format("{}: expected a whole number from 0 on, found {}", path, member.value.description()));
      } else if (count && *inner != *count && (id_count_ == 0 || *inner != id_count_)) {
        (this->*add)(member.value.byte(),
                     fmt::format("{}: expected {}, as trace_count says, found {}", path, *count, *inner));
      }
      return true;
    });
  }

  void check_names(const std::string& key) {
    const auto name = read_text("dataset_name", Presence::kRequired);
    const auto version = read_text("dataset_version", Presence::kRequired);
    if (!name || !version || key.empty()) return;
    std::string expected = *name + "-" + *version;
    for (char& c : expected) {
      if (c == ' ' || c == '/') c = '_';
    }
    if (key != expected) {
      add_warning(byte_of("dataset_key"), fmt::format("dataset_key: {}, though name and version make {}",
                                                      quoted_excerpt(key), quoted_excerpt(expected)));
    }
  }

  // Fields of which training needs nothing: a wrong type is an error, an unusual value is said.
  void check_known_values() {
    const auto build_id = read_text("build_id", Presence::kRequired);
    if (build_id && !is_uuid(*build_id)) {
      add_warning(byte_of("build_id"), fmt::format("build_id: {} is not a UUID", quoted_excerpt(*build_id)));
    }
    const auto created_at = read_text("created_at", Presence::kRequired);
    if (created_at && !is_iso_time(*created_at)) {
      add_warning(byte_of("created_at"),
                  fmt::format("created_at: {} is not an ISO 8601 time", quoted_excerpt(*created_at)));
    }
    const auto strategy = read_text("selection_strategy", Presence::kRequired);
    if (strategy && *strategy != "latest" && *strategy != "random") {
      add_warning(byte_of("selection_strategy"),
                  fmt::format("selection_strategy: {} is neither latest nor random", quoted_excerpt(*strategy)));
    }
    const auto schema = read_text("dataset_schema_version", Presence::kOptional);
    if (schema && *schema != "1.0") {
      add_warning(byte_of("dataset_schema_version"),
                  fmt::format("dataset_schema_version: {} is not the known 1.0", quoted_excerpt(*schema)));
    }
    const JsonValue* seed = find("seed", Presence::kOptional);
    if (seed && (seed->kind() != JsonKind::kNumber || !seed->integer())) {
      add_problem(*seed, "seed", "a whole number or null");
    }
  }

  void warn_unknown_fields() {
    static const std::set<std::string> kKnown = {"dataset_key",
                                                 "build_id",
                                                 "dataset_name",
                                                 "dataset_version",
                                                 "dataset_schema_version",
                                                 "created_at",
                                                 "filters",
                                                 "selection_strategy",
                                                 "seed",
                                                 "trace_ids",
                                                 "trace_count",
                                                 "stats",
                                                 "session_id",
                                                 "parent_dataset_id",
                                                 "training_run_id",
                                                 "provenance"};
    for (const auto& [name, member] : fields_) {
      if (!kKnown.count(name)) {
        add_warning(member.name_byte,
                    fmt::format("{}: not a field that is known here; it is passed over", quoted_excerpt(name)));
      }
    }
  }

  std::filesystem::path path_;
  std::string text_;
  std::map<std::string, JsonMember> fields_;
  size_t root_byte_ = 0;
  std::vector<Note> problems_;
  size_t problem_count_ = 0;
  int64_t id_count_ = 0;  // elements of trace_ids, whatever they are
  std::vector<Note> warnings_;
};

}  // namespace

Manifest load_manifest(const std::filesystem::path& path, const std::string& configured_path) {
  return ManifestReader(path, read_manifest_text(path, configured_path)).read();
}

DataSource find_training_rows(const DatasetSection& dataset, const std::optional<Manifest>& manifest,
                              const std::filesystem::path& config_file) {
  DataSource source;
  if (dataset.data_path) {
    source.tried.emplace_back(*dataset.data_path);
    source.found = find_configured_path(*dataset.data_path, config_file);
    return source;
  }
  if (!manifest) return source;
  const std::filesystem::path folder = manifest->path.parent_path();
  std::vector<std::filesystem::path> places = {folder / fmt::format("{}.jsonl", format_name(dataset.format)),
                                               folder / "dataset.jsonl"};
  if (!manifest->trace_ids.empty()) places.push_back(exported_rows_path(*manifest, dataset.format));
  for (const std::filesystem::path& place : places) {
    source.tried.push_back(place);
    std::error_code error;
    if (std::filesystem::exists(source.tried.back(), error)) {
      source.found = source.tried.back();
      break;
    }
  }
  return source;
}

std::filesystem::path exported_rows_path(const Manifest& manifest, DataFormat format) {
  Sha256 digest;
  for (const std::string& id : manifest.trace_ids) {
    digest.update(id.data(), id.size());
    digest.update("\n", 1);
  }
  return manifest.path.parent_path() / fmt::format("{}.{}.jsonl", format_name(format), digest.hex().substr(0, 12));
}

const char* format_name(DataFormat format) {
  switch (format) {
    case DataFormat::kTrainingExample: return "training_example";
    case DataFormat::kTunixSft: return "tunix_sft";
    case DataFormat::kTrace: return "trace";
    case DataFormat::kTokens: return "tokens";
  }
  return "";
}

}  // namespace gemma_sft
