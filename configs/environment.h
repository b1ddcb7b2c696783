// Environment variables and the .env file: NAME=VALUE lines, `export`, quotes, comments. The environment wins over the
// file, and an empty variable counts as unset. Values are never logged, nor part of any message, because some are
// secrets.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace gemma_sft {

// Immutable after construction; any thread may read it. A .env file that is absent, or is no regular file, is fine.
class EnvironmentReader {
 public:
  using Lookup = std::function<std::optional<std::string>(const std::string& name)>;

  // `environment` empty: the process's own. Lines of `dotenv` that are not NAME=VALUE are passed over with a warning.
  // Throws Error(kUsage) when `dotenv` exists and cannot be read or exceeds 1 MiB.
  explicit EnvironmentReader(Lookup environment = {}, const std::filesystem::path& dotenv = ".env");

  std::optional<std::string> find(const std::string& name) const;
  // Where `find` took it from, for messages: "NAME" or "NAME in .env". Empty when it is not set.
  std::string origin(const std::string& name) const;
  // Complete sentences; they name lines, never values.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  Lookup environment_;
  std::string dotenv_;
  std::map<std::string, std::string> file_;
  std::vector<std::string> warnings_;
};

enum class TunixMode { kMock, kReal };

// TUNIX_MODE; unset means mock. Throws Error(kUsage) for any value but mock and real.
TunixMode tunix_mode(const EnvironmentReader& environment);

// The variables that the program reads, for the documentation.
struct EnvironmentVariable {
  std::string name;
  std::string key;  // the setting it fills; empty: none
  std::string help;
};
const std::vector<EnvironmentVariable>& environment_variables();

}  // namespace gemma_sft
