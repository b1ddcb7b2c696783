#include "configs/environment.h"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <string_view>
#include <system_error>

#include "configs/error.h"
#include "configs/secrets.h"

namespace gemma_sft {
namespace {

constexpr size_t kMaxDotenvBytes = 1 << 20;

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name(std::string_view text) {
  if (text.empty() || !is_name_start(text[0])) return false;
  for (const char c : text) {
    if (!is_name_start(c) && !(c >= '0' && c <= '9')) return false;
  }
  return true;
}
bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

// Reads the whole text once, line by line; a quoted value may span lines.
class DotenvParser {
 public:
  DotenvParser(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  void parse(std::map<std::string, std::string>& values, std::vector<std::string>& warnings) {
    if (text_.substr(0, 3) == "\xef\xbb\xbf") at_ = 3;
    while (at_ < text_.size()) {
      ++line_;
      const int first_line = line_;
      const size_t end = line_end();
      const std::string_view line = trimmed(text_.substr(at_, end - at_));
      if (line.empty() || line[0] == '#') {
        at_ = end + 1;
        continue;
      }
      std::string name;
      std::string value;
      if (parse_assignment(name, value)) {
        values[name] = value;
      } else {
        warnings.push_back(fmt::format("{}:{}: not of the form NAME=VALUE; the line is ignored", name_, first_line));
        at_ = line_end() + 1;
      }
    }
  }

 private:
  size_t line_end() const {
    const size_t end = text_.find('\n', at_);
    return end == std::string_view::npos ? text_.size() : end;
  }

  // On success `at_` stands behind the assignment's last line; otherwise it has not moved.
  bool parse_assignment(std::string& name, std::string& value) {
    const size_t end = line_end();
    const std::string_view line = text_.substr(at_, end - at_);
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) return false;
    std::string_view left = trimmed(line.substr(0, equals));
    if (left.substr(0, 7) == "export " || left.substr(0, 7) == "export\t") {
      left = trimmed(left.substr(7));
    }
    if (!is_name(left)) return false;
    name = left;
    size_t from = at_ + equals + 1;
    while (from < end && is_blank(text_[from])) ++from;
    if (from < end && (text_[from] == '"' || text_[from] == '\'')) return parse_quoted(from, value);
    std::string_view right = text_.substr(from, end - from);
    for (size_t i = 0; i < right.size(); ++i) {
      if (right[i] == '#' && (i == 0 || is_blank(right[i - 1]))) {
        right = right.substr(0, i);
        break;
      }
    }
    value = trimmed(right);
    at_ = end + 1;
    return true;
  }

  bool parse_quoted(size_t from, std::string& value) {
    const char quote = text_[from];
    int lines = 0;
    for (size_t i = from + 1; i < text_.size(); ++i) {
      const char c = text_[i];
      if (c == quote) {
        const size_t newline = text_.find('\n', i);
        const size_t end = newline == std::string_view::npos ? text_.size() : newline;
        const std::string_view rest = trimmed(text_.substr(i + 1, end - i - 1));
        if (!rest.empty() && rest[0] != '#') return false;
        at_ = end + 1;
        line_ += lines;
        return true;
      }
      if (c == '\n') ++lines;
      if (c == '\\' && quote == '"' && i + 1 < text_.size()) {
        const char escaped = text_[++i];
        switch (escaped) {
          case 'n': value += '\n'; break;
          case 'r': value += '\r'; break;
          case 't': value += '\t'; break;
          case '"':
          case '\\':
          case '$': value += escaped; break;
          default:
            value += '\\';
            value += escaped;
            if (escaped == '\n') ++lines;
        }
        continue;
      }
      value += c;
    }
    return false;
  }

  std::string_view text_;
  std::string name_;
  size_t at_ = 0;
  int line_ = 0;
};

}  // namespace

EnvironmentReader::EnvironmentReader(Lookup environment, const std::filesystem::path& dotenv)
    : environment_(std::move(environment)), dotenv_(dotenv.string()) {
  if (!environment_) {
    environment_ = [](const std::string& name) -> std::optional<std::string> {
      const char* value = std::getenv(name.c_str());
      return value ? std::optional<std::string>(value) : std::nullopt;
    };
  }
  std::error_code ignored;
  if (dotenv.empty() || !std::filesystem::is_regular_file(dotenv, ignored)) return;
  std::ifstream file(dotenv, std::ios::binary);
  std::string text(kMaxDotenvBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (!file && !file.eof())) {
    throw Error(ErrorKind::kUsage, fmt::format("{}: cannot be read; check its permissions", dotenv_));
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxDotenvBytes) {
    throw Error(ErrorKind::kUsage, fmt::format("{}: larger than 1 MiB; expected lines NAME=VALUE", dotenv_));
  }
  DotenvParser(text, dotenv_).parse(file_, warnings_);
}

std::optional<std::string> EnvironmentReader::find(const std::string& name) const {
  std::optional<std::string> value = environment_(name);
  if (value && !value->empty()) return value;
  const auto entry = file_.find(name);
  if (entry != file_.end() && !entry->second.empty()) return entry->second;
  return std::nullopt;
}

std::string EnvironmentReader::origin(const std::string& name) const {
  const std::optional<std::string> value = environment_(name);
  if (value && !value->empty()) return name;
  const auto entry = file_.find(name);
  if (entry == file_.end() || entry->second.empty()) return "";
  return name + " in " + dotenv_;
}

TunixMode tunix_mode(const EnvironmentReader& environment) {
  const std::string mode = environment.find("TUNIX_MODE").value_or("mock");
  if (mode == "mock") return TunixMode::kMock;
  if (mode == "real") return TunixMode::kReal;
  throw Error(ErrorKind::kUsage,
              fmt::format("{}: expected mock or real, found {}; unset it for mock", environment.origin("TUNIX_MODE"),
                          holds_secret(mode) ? "a secret" : fmt::format("\"{}\"", mode)));
}

const std::vector<EnvironmentVariable>& environment_variables() {
  static const std::vector<EnvironmentVariable> variables = {
      {"TRAINING_OUTPUT_DIR", "output.run_dir",
       "Parent folder of the run folders; wins over the file, loses to --output-dir."},
      {"TRAINING_OUTPUT_BUCKET", "output.run_dir",
       "Replaces only the bucket of a gs:// address that the file or TRAINING_OUTPUT_DIR gives."},
      {"TUNIX_BASE_URL", "tunix.api_base_url", "Address of the job service."},
      {"TUNIX_PROJECT_ID", "tunix.project_id", "Project that jobs belong to."},
      {"TUNIX_MODE", "", "mock (what unset means) or real; anything else is an error."},
      {"TUNIX_API_KEY", "", "Secret: key of the job service. Never accepted in YAML or flags."},
      {"TUNIX_CA_FILE", "", "Certificates (PEM) to trust for the job service instead of the system's."},
      {"TUNIX_RETRY_SECONDS", "", "How long a call to the job service is tried again, 0 to 86400; unset: 300."},
      {"TUNIX_MOCK_SCENARIO", "",
       "How a job ends in mock mode: success (what unset means), job_failed, job_timeout, job_cancelled, "
       "out_of_memory, "
       "invalid_api_key, quota_exceeded."},
      {"DATABASE_URL", "", "Secret: PostgreSQL address, needed only when traces are read from the database."},
  };
  return variables;
}

}  // namespace gemma_sft
