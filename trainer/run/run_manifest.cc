#include "trainer/run/run_manifest.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <variant>

#include "configs/settings.h"
#include "data/files/json_text.h"
#include "trainer/run/utf8_json.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr uint64_t kMostGitBytes = 64 << 20;  // packed-refs of the largest repositories stay below
constexpr uint64_t kMostLineBytes = 64 << 10;
constexpr uint64_t kMostManifestBytes = 1 << 20;
constexpr size_t kMostDepth = 16;

Json to_json(const Value& value) {
  return std::visit(
      [](const auto& held) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::monostate>) {
          return nullptr;
        } else {
          return held;
        }
      },
      value);
}

// All keys below `section`, nested as in the YAML file; keys without a value are left out.
Json section_json(const RunConfig& config, std::string_view section) {
  Json object = Json::object();
  for (const Setting& setting : settings()) {
    if (!setting.key.starts_with(std::string(section) + ".")) continue;
    const Value value = setting.field.get(config);
    if (std::holds_alternative<std::monostate>(value)) continue;
    Json* place = &object;
    std::string rest = setting.key.substr(section.size() + 1);
    for (size_t dot = rest.find('.'); dot != std::string::npos; dot = rest.find('.')) {
      place = &(*place)[rest.substr(0, dot)];
      rest = rest.substr(dot + 1);
    }
    (*place)[rest] = to_json(value);
  }
  return object;
}

std::optional<std::string> first_line(const fs::path& path) {
  std::string line;
  try {
    line = read_file(path, kMostLineBytes);
  } catch (const Error&) {
    return std::nullopt;  // absent, or not what git writes
  }
  if (line.empty()) return std::nullopt;
  line.resize(std::min(line.find('\n'), line.size()));
  while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
  return line;
}

bool is_commit(std::string_view text) {
  return (text.size() == 40 || text.size() == 64) && text.find_first_not_of("0123456789abcdef") == text.npos;
}

std::optional<std::string> find_packed_ref(const fs::path& git, const std::string& name) {
  std::error_code error;
  const uint64_t size = fs::file_size(git / "packed-refs", error);
  if (error || size > kMostGitBytes) return std::nullopt;
  std::ifstream stream(git / "packed-refs");
  for (std::string line; std::getline(stream, line);) {
    const size_t space = line.find(' ');
    if (space != std::string::npos && line.substr(space + 1) == name && is_commit(line.substr(0, space))) {
      return line.substr(0, space);
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> find_in_run_manifest(const fs::path& folder, std::string_view name) {
  const fs::path path = folder / kRunManifestName;
  if (!fs::is_regular_file(fs::symlink_status(path)) || fs::file_size(path) > kMostManifestBytes) return std::nullopt;
  const std::string text = read_file(path, kMostManifestBytes);
  if (find_json_problem(text, {.max_depth = kMostDepth})) return std::nullopt;
  const std::optional<JsonValue> found = find_member(JsonValue(text), name);
  return found && found->kind() == JsonKind::kString ? std::optional(found->string()) : std::nullopt;
}

void write_run_manifest(const fs::path& folder, const RunManifest& manifest, FileSystem& files) {
  const fs::path path = folder / kRunManifestName;
  std::string created_at = manifest.created_at;
  if (created_at.empty()) created_at = find_in_run_manifest(folder, "created_at").value_or(utc_timestamp());
  Json json;
  json["run_id"] = manifest.run_id;
  json["created_at"] = created_at;
  json["dataset_path"] = manifest.dataset_path;
  json["dataset_key"] = manifest.dataset_key ? Json(*manifest.dataset_key) : Json(nullptr);
  json["training_config"] = section_json(manifest.config, "training");
  json["model_config"] = section_json(manifest.config, "model");
  json["dataset_config"] = section_json(manifest.config, "dataset");
  if (manifest.config.lora.rank > 0) json["lora_config"] = section_json(manifest.config, "lora");
  json["evaluation_config"] = section_json(manifest.config, "evaluation");
  json["output_config"] = section_json(manifest.config, "output");
  json["recipe"] = manifest.recipe;
  json["backend"] = "native";
  json["device"] = manifest.device;
  json["seed"] = manifest.config.training.seed;
  json["git_sha"] = manifest.git_sha ? Json(*manifest.git_sha) : Json(nullptr);
  json["artifacts_path"] = manifest.artifacts_path.string();
  json["versions"] = manifest.versions;
  json["sha256"] = manifest.sha256;
  json["metadata"] = manifest.metadata;
  write_file_durably(files, path, utf8_json(json, 2) + "\n");
}

std::optional<std::string> find_git_sha(const fs::path& folder) {
  std::error_code error;
  fs::path place = fs::absolute(folder.empty() ? "." : folder, error).lexically_normal();
  for (; !error; place = place.parent_path()) {
    fs::path git = place / ".git";
    if (fs::is_regular_file(git, error)) {  // a worktree or submodule: "gitdir: PATH"
      const std::optional<std::string> line = first_line(git);
      if (!line || !line->starts_with("gitdir: ")) return std::nullopt;
      git = place / line->substr(8);
    }
    if (fs::is_directory(git, error)) {
      const std::optional<std::string> head = first_line(git / "HEAD");
      if (!head) return std::nullopt;
      if (is_commit(*head)) return head;
      if (!head->starts_with("ref: ")) return std::nullopt;
      const std::string name = head->substr(5);
      fs::path common = git;
      if (const auto line = first_line(git / "commondir")) common = git / *line;
      for (const fs::path& root : {git, common}) {
        const std::optional<std::string> commit = first_line(root / name);
        if (commit && is_commit(*commit)) return commit;
      }
      return find_packed_ref(common, name);
    }
    error.clear();
    if (place == place.parent_path()) break;
  }
  return std::nullopt;
}

std::string utc_timestamp() {
  const auto now = std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
  const auto seconds = std::chrono::time_point_cast<std::chrono::seconds>(now);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)),
                     (now - seconds).count());
}

}  // namespace gemma_sft
