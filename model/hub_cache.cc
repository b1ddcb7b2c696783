#include "model/hub_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "configs/configured_path.h"
#include "configs/error.h"
#include "configs/model_name.h"
#include "data/files/file_system.h"
#include "data/files/folder_entry.h"
#include "data/files/json_text.h"
#include "data/files/pickle.h"
#include "data/files/utf8.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxTreeBytes = 8 << 20;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

fs::path home() { return environment("HOME").empty() ? fs::path("/") : fs::path(environment("HOME")); }

// As Python's expandvars: "$NAME" and "${NAME}", left as they are where there is no such variable.
std::string with_variables(const std::string& text) {
  const auto is_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  std::string filled;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at++;
    std::string name;
    if (text[begin] == '$' && at < text.size() && text[at] == '{') {
      const size_t close = text.find('}', at);
      if (close != std::string::npos) {
        name = text.substr(at + 1, close - at - 1);
        at = close + 1;
      }
    } else if (text[begin] == '$') {
      while (at < text.size() && is_word(text[at])) name += text[at++];
    }
    const char* value = name.empty() ? nullptr : std::getenv(name.c_str());
    filled += value != nullptr ? value : text.substr(begin, at - begin);
  }
  return filled;
}

fs::path expanded(const std::string& path) {
  if (path == "~") return home();
  return with_variables(path.starts_with("~/") ? (home() / path.substr(2)).string() : path);
}

fs::path cache_folder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const std::string cache = environment(name); !cache.empty()) return expanded(cache);
  }
  if (const std::string hf = environment("HF_HOME"); !hf.empty()) return expanded(hf) / "hub";
  if (const std::string xdg = environment("XDG_CACHE_HOME"); !xdg.empty()) return expanded(xdg) / "huggingface" / "hub";
  return home() / ".cache" / "huggingface" / "hub";
}

// "owner/name" by the hub's rules.
bool is_hub_id(const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == std::string::npos || text.find('/', slash + 1) != std::string::npos || text.size() > 96) return false;
  if (text.find("--") != std::string::npos || text.find("..") != std::string::npos) return false;
  for (const std::string_view part :
       {std::string_view(text).substr(0, slash), std::string_view(text).substr(slash + 1)}) {
    const auto at_edge = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
    if (part.empty() || !at_edge(part.front()) || !at_edge(part.back())) return false;
    if (!std::all_of(part.begin(), part.end(), [&](char c) { return at_edge(c) || c == '-' || c == '.'; }))
      return false;
  }
  return true;
}

// The name of a snapshot's folder. On the hub it is a commit's 40 hex digits; the hub's own client takes whatever a
// file below refs/ says.
bool is_snapshot_name(const std::string& text) {
  constexpr char kPlain[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._-";
  return !text.empty() && text != "." && text != ".." && text.find_first_not_of(kPlain) == std::string::npos;
}

// A branch or tag may have slashes ("refs/pr/1"), but must stay below the refs folder.
bool is_revision(const std::string& text) {
  if (text.empty() || text.front() == '/' || text.find('\0') != std::string::npos) return false;
  for (const fs::path& part : fs::path(text)) {
    if (part == ".." || part == "." || part.empty()) return false;
  }
  return true;
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

// As it is where it can be printed so, else quoted and escaped: it may come from a file.
std::string printable(const std::string& name) {
  const std::string quoted = quoted_excerpt(name, 300);
  return quoted == '"' + name + '"' ? name : quoted;
}

std::string download_command(const std::string& id, const std::optional<std::string>& revision) {
  return fmt::format("hf download {}{}", id, revision ? " --revision " + *revision : "");
}

[[noreturn]] void fail_absent(const std::string& id, const std::optional<std::string>& revision,
                              const std::string& why) {
  std::string text = fmt::format("{}: {}. Download it once with\n  {}\n", id, why, download_command(id, revision));
  text += fmt::format(
      "Gemma models are gated: accept the licence at https://huggingface.co/{} and log in with `hf auth login` "
      "(or set HF_TOKEN) first",
      id);
  for (const char* offline : {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}) {
    if (const std::string value = environment(offline); !value.empty() && value != "0") {
      text += fmt::format("; {} is set, unset it for the download", offline);
      break;
    }
  }
  throw Error(ErrorKind::kModel, text);
}

// Files that loading needs. The rest of a repository (README, images, other formats) may be absent.
bool is_needed(const std::string& name) {
  if (name.find('/') != std::string::npos) return false;
  return name == "config.json" || name == "tokenizer.model" || name == "model.safetensors" ||
         name == "model.safetensors.index.json" || (name.starts_with("model-") && name.ends_with(".safetensors"));
}

// Names of the needed files that the commit has and the snapshot lacks, or has with another size. Newer caches know the
// commit's files; an unreadable listing says nothing.
std::vector<std::string> absent_files(const fs::path& repository, const std::string& commit) {
  const fs::path listing = repository / "trees" / (commit + ".json");
  std::vector<std::string> absent;
  if (!fs::exists(listing)) return absent;
  const std::string text = read_file(listing, kMaxTreeBytes);
  if (find_json_problem(text)) return absent;
  const JsonValue root(text);
  if (root.kind() != JsonKind::kObject) return absent;
  const fs::path snapshot = repository / "snapshots" / commit;
  root.each_member([&](const JsonMember& member) {
    if (member.name != "files" || member.value.kind() != JsonKind::kObject) return true;
    member.value.each_member([&](const JsonMember& file) {
      if (!is_needed(file.name)) return true;
      std::optional<int64_t> size;
      if (file.value.kind() == JsonKind::kObject) {
        file.value.each_member([&](const JsonMember& fact) {
          if (fact.name == "size" && fact.value.kind() == JsonKind::kNumber) size = fact.value.integer();
          return true;
        });
      }
      std::error_code error;
      const uintmax_t found = fs::file_size(snapshot / file.name, error);
      if (error) {
        absent.push_back(printable(file.name));
      } else if (size && found != static_cast<uintmax_t>(*size)) {
        absent.push_back(fmt::format("{} ({} of {} bytes)", printable(file.name), found, *size));
      }
      return true;
    });
    return false;
  });
  return absent;
}

fs::path require_snapshot(const std::string& id, const std::optional<std::string>& revision) {
  const fs::path cache = cache_folder();
  const fs::path repository = cache / cache_folder_name(id);
  const std::string wanted = revision.value_or("main");
  if (!is_revision(wanted)) {
    throw Error(ErrorKind::kModel,
                fmt::format("model.revision: {} is no branch, tag or commit", quoted_excerpt(wanted)));
  }
  if (!fs::is_directory(repository)) {
    fail_absent(
        id, revision,
        fmt::format("not found: there is no such folder, and no such model in the local Hugging Face cache ({})",
                    cache.string()));
  }
  std::string commit = wanted;
  const fs::path reference = repository / "refs" / wanted;
  std::error_code unknown;
  if (fs::is_regular_file(reference, unknown)) commit = trimmed(read_file(reference, 4096));
  const fs::path snapshot = repository / "snapshots" / commit;
  if (!is_snapshot_name(commit) || !fs::is_directory(snapshot)) {
    fail_absent(id, revision,
                fmt::format("revision {} not found in the local Hugging Face cache ({})", printable(wanted),
                            repository.string()));
  }
  std::vector<std::string> absent = absent_files(repository, commit);
  if (absent.empty() && !fs::exists(snapshot / "config.json")) absent.push_back("config.json");
  if (!absent.empty()) {
    fail_absent(id, revision,
                fmt::format("the download in the local Hugging Face cache is not complete, {} lacks {}",
                            snapshot.string(), fmt::join(absent, ", ")));
  }
  return snapshot;
}

}  // namespace

std::string cache_folder_name(const std::string& hub_id) {
  std::string name = "models--" + hub_id;
  if (const size_t slash = name.find('/'); slash != std::string::npos) name.replace(slash, 1, "--");
  return name;
}

fs::path require_model_folder(const std::string& model, const std::optional<std::string>& revision) {
  // Names can come from files (an adapter's config names its base): the system would read this one up to the NUL.
  if (model.find('\0') != std::string::npos || (revision && revision->find('\0') != std::string::npos)) {
    throw Error(ErrorKind::kModel, quoted_excerpt(model, 200) + ": a model's name or revision cannot hold a NUL byte");
  }
  const fs::path path = model;
  std::error_code unknown;  // a name too long for the system is that of no folder
  if (!model.empty() && fs::exists(path, unknown)) {
    if (!fs::is_directory(path)) {
      const std::string pickle = fs::is_regular_file(path) ? recognise_pickle_file(path) : "";
      throw Error(ErrorKind::kModel,
                  model + (pickle.empty() ? ": is a file; expected a model folder in Hugging Face's layout, or a hub id"
                                          : ": " + pickle));
    }
    if (!has_folder_entry(path, "config.json")) {
      throw Error(ErrorKind::kModel, (path / "config.json").string() +
                                         ": not found; a model folder in Hugging Face's layout has a config.json");
    }
    return path;
  }
  if (!is_hub_id(model)) {
    throw Error(ErrorKind::kModel,
                fmt::format("{}: not found; expected a model folder or a hub id such as google/gemma-2b-it",
                            model.empty() ? "model" : printable(model)));
  }
  return require_snapshot(model, revision);
}

fs::path find_base_model(const ModelSection& model, const fs::path& config_file) {
  const auto folder = find_configured_path(model.base_model, config_file);
  if (!folder) return require_model_folder(model.base_model, model.revision);
  // A folder that happens to have the name of a model on the hub does not hide it.
  const bool is_model = has_folder_entry(*folder, "config.json");
  if (!is_model && can_be_hub_id(model.base_model) && !fs::exists(model.base_model)) {
    return require_model_folder(model.base_model, model.revision);
  }
  return require_model_folder(folder->string(), std::nullopt);
}

}  // namespace gemma_sft
