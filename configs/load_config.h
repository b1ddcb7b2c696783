// YAML file + .env + environment + command line -> RunConfig, with the origin of every value.
//
// Precedence: flags and --set > environment > .env > file > default. Nothing is ignored silently: an unknown or
// duplicate key, a wrong type, a value out of range or a contradictory pair is an error with `file:line:column`, the
// full key path and the nearest known key, and all problems of a file are reported in one `Error` (kUsage), one per
// line.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "configs/configured_path.h"
#include "configs/resolved_yaml.h"
#include "configs/run_config.h"

namespace gemma_sft {

// One `key=value` from the command line. `origin` is what the user typed, for messages: "--set" or "--output-dir".
struct Assignment {
  std::string key;  // full path, e.g. "training.learning_rate"
  // YAML scalar or flow sequence; for a key that holds text, the text itself. After --set, `null` takes the key back to
  // its default.
  std::string value;
  std::string origin;
};

struct LoadOptions {
  std::vector<Assignment> assignments;  // later ones win
  // Reads an environment variable; a test gives its own. Default: getenv.
  std::function<std::optional<std::string>(const std::string&)> environment;
  std::filesystem::path dotenv = ".env";  // absent is fine
};

struct LoadedConfig {
  RunConfig config;
  std::string file;  // as the user gave it
  // "configs/x.yaml:3:5", "configs/x.yaml:3:5 as training.num_steps", "--set", "TRAINING_OUTPUT_DIR",
  // "TUNIX_PROJECT_ID in .env", "default"
  std::map<std::string, std::string> origins;  // every key -> where its value comes from
  std::vector<std::string> warnings;           // complete sentences, to be shown on stderr
};

// Throws Error(kUsage): "Config file not found: PATH" or the list of problems.
LoadedConfig load_config(const std::string& file, const LoadOptions& options = {});

}  // namespace gemma_sft
