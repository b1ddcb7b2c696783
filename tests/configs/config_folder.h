// A temporary folder to write configuration files into, and load_config with an environment of the test's own.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <stdlib.h>

#include "configs/error.h"
#include "configs/load_config.h"

namespace gemma_sft {

// What a minimal file needs; the next line is line 5.
inline const std::string kBase =
    "model:\n"
    "  base_model: google/gemma-2b-it\n"
    "dataset:\n"
    "  data_path: train.jsonl\n";

inline std::string file_text(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::stringstream text;
  text << stream.rdbuf();
  return text.str();
}

class ConfigFolder {
 public:
  ConfigFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "gemma_sft_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ConfigFolder(const ConfigFolder&) = delete;
  ConfigFolder& operator=(const ConfigFolder&) = delete;
  ~ConfigFolder() { std::filesystem::remove_all(path_); }

  const std::filesystem::path& path() const { return path_; }

  std::filesystem::path write(const std::string& name, const std::string& text) const {
    const std::filesystem::path file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
    return file;
  }

  std::map<std::string, std::string> environment;
  std::string dotenv;  // the text of .env; empty: there is none
  std::vector<Assignment> assignments;

  // --set key=value
  void set(const std::string& key, const std::string& value) { assignments.push_back({key, value, "--set"}); }

  LoadedConfig load(const std::string& yaml) const { return load_file(write("c.yaml", yaml)); }

  LoadedConfig load_file(const std::filesystem::path& file) const {
    LoadOptions options;
    options.assignments = assignments;
    options.environment = [this](const std::string& name) -> std::optional<std::string> {
      const auto found = environment.find(name);
      return found == environment.end() ? std::nullopt : std::optional<std::string>(found->second);
    };
    options.dotenv = dotenv.empty() ? path_ / "no.env" : write(".env", dotenv);
    return load_config(file.string(), options);
  }

  // The whole message of the Error that loading `yaml` throws, with the file as "c.yaml"; "" when it loads.
  std::string problems(const std::string& yaml) const {
    try {
      load(yaml);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kUsage) return "not a usage error";
      return short_names(error.what());
    }
    return "";
  }

  // `text` without the path of this folder.
  std::string short_names(std::string text) const {
    const std::string prefix = path_.string() + "/";
    for (size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix)) {
      text.erase(at, prefix.size());
    }
    return text;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace gemma_sft
