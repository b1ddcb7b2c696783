#include "trainer/resume_check.h"

#include <fmt/format.h>

#include <algorithm>

#include "configs/choice_names.h"
#include "configs/config_difference.h"
#include "configs/error.h"
#include "configs/value_reader.h"

namespace gemma_sft {
namespace {

const char* flag_value(AllowedChange kind) {
  switch (kind) {
    case AllowedChange::kData: return "data";
    case AllowedChange::kConfig: return "config";
    case AllowedChange::kTokenizer: return "tokenizer";
  }
  return "config";
}

// Keys that say where a file is (its content is compared instead), and those that are compared as what they come to.
bool is_compared_otherwise(const std::string& key) {
  static const std::set<std::string> keys = {"model.base_model",    "model.revision",          "dataset.manifest_path",
                                             "dataset.data_path",   "dataset.validation_path", "training.max_steps",
                                             "training.num_epochs", "training.precision"};
  return keys.contains(key);
}

}  // namespace

std::vector<OriginChange> find_changes(const RunOrigin& before, const RunOrigin& now) {
  std::vector<OriginChange> changes;
  const auto compare_files = [&](AllowedChange kind, const char* what, const std::string& old_sha256,
                                 const std::string& new_sha256) {
    if (old_sha256 == new_sha256) return;
    changes.push_back({kind, fmt::format("{}: SHA-256 was {} and is {}", what, shown_text(old_sha256), new_sha256)});
  };
  compare_files(AllowedChange::kData, "the data file", before.data_sha256, now.data_sha256);
  compare_files(AllowedChange::kTokenizer, "the tokenizer", before.tokenizer_sha256, now.tokenizer_sha256);
  compare_files(AllowedChange::kConfig, "the base model", before.model_sha256, now.model_sha256);
  for (const ConfigDifference& difference : training_differences(before.config, now.config)) {
    if (is_compared_otherwise(difference.key)) continue;
    changes.push_back({AllowedChange::kConfig,
                       fmt::format("{} was {} and is {}", difference.key, difference.before, difference.now)});
  }
  if (before.precision != now.precision) {
    changes.push_back({AllowedChange::kConfig, fmt::format("training.precision was {} and is {}",
                                                           choice_name(before.precision), choice_name(now.precision))});
  }
  if (now.total_steps < before.total_steps) {
    changes.push_back({AllowedChange::kConfig,
                       fmt::format("training.max_steps or training.num_epochs: the run had {} steps and has {}",
                                   before.total_steps, now.total_steps)});
  }
  return changes;
}

std::vector<std::string> require_same_origin(const RunOrigin& before, const RunOrigin& now,
                                             const std::set<AllowedChange>& allowed, const std::string& checkpoint,
                                             const RunPlace& place) {
  std::vector<std::string> notes;
  std::string refused;
  std::set<std::string> flags;
  for (const OriginChange& change : find_changes(before, now)) {
    if (allowed.contains(change.kind)) {
      notes.push_back(fmt::format("continuing although {}", change.what));
      continue;
    }
    refused += fmt::format("\n  {}", change.what);
    flags.insert(flag_value(change.kind));
  }
  // What ends bit-exactness; refused where the run promises it.
  const auto compare = [&](const char* what, const std::string& old_value, const std::string& new_value) {
    if (old_value == new_value) return;
    const std::string change = fmt::format("{} was {} and is {}", what, shown_text(old_value), new_value);
    if (!now.config.training.deterministic || allowed.contains(AllowedChange::kConfig)) {
      notes.push_back(change + ": the numbers will not continue bit by bit");
      return;
    }
    refused += fmt::format("\n  {}, which training.deterministic: true does not allow", change);
    flags.insert(flag_value(AllowedChange::kConfig));
  };
  compare("the device", before.device, now.device);
  compare("the number of threads", std::to_string(before.threads), std::to_string(now.threads));
  for (const auto& [name, version] : now.versions) {
    const auto old = before.versions.find(name);
    compare(name.c_str(), old == before.versions.end() ? "unknown" : old->second, version);
  }
  if (!refused.empty()) {
    std::string remedy;
    for (const std::string& flag : flags) remedy += fmt::format(" --allow-changed {}", flag);
    throw Error(
        ErrorKind::kCheckpoint,
        fmt::format("{}: was made from something else than this run:{}\nUndo the change, {}, or accept it with{}",
                    checkpoint, refused, describe_new_start(place), remedy));
  }
  return notes;
}

}  // namespace gemma_sft
