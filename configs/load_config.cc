#include "configs/load_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <string_view>
#include <system_error>
#include <tuple>

#include "configs/aliases.h"
#include "configs/environment.h"
#include "configs/error.h"
#include "configs/model_name.h"
#include "configs/nearest_key.h"
#include "configs/other_trainers.h"
#include "configs/scalar.h"
#include "configs/secrets.h"
#include "configs/settings.h"
#include "configs/value_reader.h"
#include "configs/yaml_tree.h"

namespace gemma_sft {
namespace {

// Where a value was written.
struct Spot {
  int rank = 0;  // 0: the file, 1: the environment, 2 and on: the assignments in their order
  Place place;
  std::string where;   // for messages: "configs/x.yaml:3:5", "--set training.seed=x"
  std::string origin;  // for LoadedConfig::origins
};

bool stands_before(const Spot& a, const Spot& b) {
  return std::tie(a.rank, a.place.line, a.place.column) < std::tie(b.rank, b.place.line, b.place.column);
}

struct Problem {
  Spot spot;
  std::string message;
};

std::string_view last_name(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

std::string joined(const std::string& section, const std::string& key) {
  return section.empty() ? key : section + "." + key;
}

std::vector<std::string> sections() {
  std::set<std::string> seen;
  std::vector<std::string> all;
  for (const std::string& key : setting_keys()) {
    for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', dot + 1)) {
      if (seen.insert(key.substr(0, dot)).second) all.push_back(key.substr(0, dot));
    }
  }
  return all;
}

// A section that holds aliases and no settings.
bool is_alias_section(const std::string& path) {
  return std::any_of(aliases().begin(), aliases().end(),
                     [&](const Alias& alias) { return alias.key.compare(0, path.size() + 1, path + ".") == 0; });
}

std::string read_config_file(const std::string& file) {
  std::error_code code;
  const std::filesystem::file_status status = std::filesystem::status(file, code);
  if (status.type() == std::filesystem::file_type::not_found || file.empty()) {
    throw Error(ErrorKind::kUsage, fmt::format("Config file not found: {}; give --config a YAML file such as "
                                               "configs/sft_tiny.yaml",
                                               file.empty() ? "\"\"" : file));
  }
  if (status.type() == std::filesystem::file_type::directory) {
    throw Error(ErrorKind::kUsage, fmt::format("Config file is a folder: {}; give --config a YAML file", file));
  }
  // A pipe nobody writes to would never end, and one that somebody does cannot be read by both programs.
  if (status.type() != std::filesystem::file_type::regular && !code) {
    throw Error(ErrorKind::kUsage,
                fmt::format("Config file is a pipe, socket or device: {}; give --config a YAML file", file));
  }
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  std::string text;
  if (stream) {
    text.resize(YamlLimits::kBytes + 1);
    stream.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(stream.gcount()));
  }
  if (!stream && !stream.eof()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("Config file cannot be read: {}: {}", file, std::strerror(errno != 0 ? errno : EIO)));
  }
  return text;
}

class ConfigLoader {
 public:
  ConfigLoader(const std::string& file, const LoadOptions& options)
      : options_(options), environment_(options.environment, options.dotenv) {
    loaded_.file = file;
    loaded_.warnings = environment_.warnings();
  }

  LoadedConfig load() {
    apply_file();
    apply_environment();
    for (size_t i = 0; i < options_.assignments.size(); ++i) {
      apply_assignment(options_.assignments[i], static_cast<int>(i) + 2);
    }
    check_required();
    check_model();
    check_pairs();
    check_effects();
    refuse_if_problems();
    for (const std::string& key : setting_keys()) {
      const auto given = given_.find(key);
      if (given != given_.end()) loaded_.origins[key] = given->second.origin;
      if (loaded_.origins.count(key) == 0) loaded_.origins[key] = "default";
    }
    return loaded_;
  }

 private:
  static constexpr size_t kMostShown = 100;  // a file may hold thousands of problems, a message should not

  // ---- Messages.

  Spot in_file(Place place) const {
    const std::string where =
        place.line == 0 ? loaded_.file : fmt::format("{}:{}:{}", loaded_.file, place.line, place.column);
    return {0, place, where, where};
  }

  void report(const Spot& spot, const std::string& key, const std::string& what) {
    problems_.push_back({spot, fmt::format("{}: {}: {}", spot.where, shown_text(key), what)});
    failed_.insert(key);
  }

  void warn(const Spot& spot, const std::string& key, const std::string& what) {
    warnings_.push_back({spot, fmt::format("{}: {}: {}", spot.where, shown_text(key), what)});
  }

  void refuse_if_problems() {
    const auto in_order = [](std::vector<Problem>& list) {
      std::stable_sort(list.begin(), list.end(),
                       [](const Problem& a, const Problem& b) { return stands_before(a.spot, b.spot); });
    };
    in_order(problems_);
    in_order(warnings_);
    for (const Problem& warning : warnings_) loaded_.warnings.push_back(warning.message);
    if (problems_.empty()) return;
    std::string message;
    for (size_t i = 0; i < std::min(problems_.size(), kMostShown); ++i) {
      if (!message.empty()) message += '\n';
      message += problems_[i].message;
    }
    if (problems_.size() > kMostShown) message += fmt::format("\nand {} more", problems_.size() - kMostShown);
    throw Error(ErrorKind::kUsage, message);
  }

  // ---- The file.

  void apply_file() {
    const std::string text = read_config_file(loaded_.file);
    YamlNode root;
    try {
      root = parse_yaml(text);
    } catch (const YamlProblem& problem) {
      throw Error(ErrorKind::kUsage, fmt::format("{}: {}", in_file(problem.place).where, problem.what()));
    }
    if (root.kind == YamlNode::Kind::kNothing) {
      throw Error(ErrorKind::kUsage, fmt::format("{}:1:1: the file is empty; a configuration needs at least "
                                                 "model.base_model and dataset.data_path",
                                                 loaded_.file));
    }
    if (root.kind != YamlNode::Kind::kMap) {
      throw Error(ErrorKind::kUsage, fmt::format("{}: expected sections such as model: and dataset:, found {}",
                                                 in_file(root.place).where, found_text(root)));
    }
    apply_section(root, "");
  }

  void apply_section(const YamlNode& node, const std::string& section) {
    std::map<std::string, Place> seen;
    for (const YamlEntry& entry : node.entries) {
      const std::string key = joined(section, entry.key);
      const auto [first, is_new] = seen.emplace(entry.key, entry.place);
      if (!is_new) {
        report(in_file(entry.place), key,
               fmt::format("duplicate key; it stands on line {} already", first->second.line));
        continue;
      }
      apply_entry(entry, key);
    }
  }

  void apply_entry(const YamlEntry& entry, const std::string& key) {
    const Spot key_spot = in_file(entry.place);
    const Spot value_spot = entry.value.kind == YamlNode::Kind::kNothing ? key_spot : in_file(entry.value.place);
    if (entry.key.find('.') != std::string::npos) {
      report_dotted(key_spot, entry.key, key);
    } else if (const Setting* setting = find_setting(key)) {
      if (!report_secrets(entry.value, key)) apply_value(*setting, entry.value, value_spot, key);
    } else if (is_section(key)) {
      section_places_[key] = entry.place;
      if (key == "tunix" || key == "model.tunix_job_config") loaded_.config.tunix.present = true;
      if (entry.value.kind == YamlNode::Kind::kMap) {
        apply_section(entry.value, key);
      } else if (entry.value.kind != YamlNode::Kind::kNothing) {
        report(value_spot, key,
               fmt::format("expected a section with keys below it, found {}", found_text(entry.value)));
      }
    } else if (is_alias_section(key) &&
               (entry.value.kind == YamlNode::Kind::kMap || entry.value.kind == YamlNode::Kind::kNothing)) {
      apply_section(entry.value, key);
    } else if (const Alias* alias = find_alias(key)) {
      if (!report_secrets(entry.value, key)) apply_alias(*alias, entry.value, key_spot, value_spot);
    } else if (names_secret(entry.key)) {
      report_secret_key(key_spot, key);
    } else {
      report_unknown(key_spot, key, entry.value.kind == YamlNode::Kind::kMap);
      report_secrets(entry.value, key);
    }
  }

  void report_dotted(const Spot& spot, const std::string& written, const std::string& key) {
    if (names_secret(last_name(written))) return report_secret_key(spot, key);
    if (find_setting(key) == nullptr && find_alias(key) == nullptr && !is_section(key)) {
      return report_unknown(spot, key, false);
    }
    const size_t dot = key.rfind('.');
    report(spot, key,
           fmt::format("keys are nested in this file; write {} on a line of its own below {}:", last_name(key),
                       key.substr(0, dot)));
  }

  void report_unknown(const Spot& spot, const std::string& key, bool holds_section) {
    if (const OtherTrainersKey* other = find_other_trainers_key(key)) {
      if (other->setting.empty()) return report(spot, key, fmt::format("unknown key; {}", other->remedy));
      meant_.insert(std::string(other->setting));
      return report(spot, key, fmt::format("unknown key; here it is {}", other->setting));
    }
    if (problems_.size() >= kMostShown) return report(spot, key, "unknown key");  // nobody will read it
    std::vector<std::string> candidates;
    if (!holds_section) candidates = setting_keys();
    for (const std::string& section : sections()) candidates.push_back(section);
    const Nearest nearest = nearest_key(key, candidates);
    if (nearest.close) meant_.insert(nearest.name);
    const std::string name = is_section(nearest.name) ? fmt::format("the section {}", nearest.name) : nearest.name;
    report(spot, key,
           nearest.close ? fmt::format("unknown key; did you mean {}?", name)
                         : fmt::format("unknown key; the nearest known one is {}, and `gemma-sft config "
                                       "schema` lists all",
                                       name));
  }

  void report_secret_key(const Spot& spot, const std::string& key) {
    report(spot, key, fmt::format("secrets are not accepted here; {}", secret_remedy(last_name(key))));
  }

  // Reports every secret in the value, by the names of keys in it and by its form. Gives whether there was one.
  bool report_secrets(const YamlNode& node, const std::string& key) {
    bool found = false;
    if (node.kind == YamlNode::Kind::kScalar && holds_secret(node.text)) {
      report_secret_value(in_file(node.place), key);
      found = true;
    }
    for (const YamlNode& item : node.items) found |= report_secrets(item, key);
    for (const YamlEntry& entry : node.entries) {
      const std::string path = joined(key, entry.key);
      if (names_secret(entry.key) || holds_secret(entry.key)) {
        report_secret_key(in_file(entry.place), path);
        found = true;
      } else {
        found |= report_secrets(entry.value, path);
      }
    }
    return found;
  }

  void report_secret_value(const Spot& spot, const std::string& key) {
    report(spot, key,
           "the value holds a secret, which is not accepted here; give secrets in environment "
           "variables (TUNIX_API_KEY, DATABASE_URL) or in .env");
  }

  // ---- One value.

  // `written` is the key as the user wrote it: the setting's own, or an alias of it.
  void apply_value(const Setting& setting, const YamlNode& node, const Spot& spot, const std::string& written) {
    const ReadValue read = read_value(setting, node);
    if (!read.problem.empty()) {
      report(spot, written, read.problem);
      failed_.insert(setting.key);
      return;
    }
    const auto before = given_.find(setting.key);
    if (before != given_.end() && before->second.rank == 0 && spot.rank == 0) {
      return report_twice(setting, read.value, spot, written, before->second);
    }
    setting.field.set(loaded_.config, read.value);
    Spot given = spot;
    if (written != setting.key) given.origin += " as " + written;
    given_[setting.key] = given;
    if (spot.rank != 1 && is_for_job_service(setting.key)) loaded_.config.tunix.present = true;
  }

  static bool is_for_job_service(const std::string& key) {
    return key.compare(0, 6, "tunix.") == 0 || key.compare(0, 23, "model.tunix_job_config.") == 0;
  }

  void report_twice(const Setting& setting, const Value& value, const Spot& spot, const std::string& written,
                    const Spot& before) {
    const std::string other = fmt::format("{} ({})", setting.key, before.origin);
    if (value == setting.field.get(loaded_.config)) {
      warn(spot, written, fmt::format("says the same as {}; one of them is enough", other));
    } else {
      report(spot, written, fmt::format("contradicts {}, which is the same setting; keep one of them", other));
    }
  }

  void apply_alias(const Alias& alias, const YamlNode& node, const Spot& key_spot, const Spot& value_spot) {
    const bool is_scalar = node.kind == YamlNode::Kind::kScalar;
    for (const RefusedValue& refused : alias.refused) {
      if (is_scalar && node.text == refused.value) {
        return report(value_spot, alias.key, fmt::format("{} is refused: {}", refused.value, refused.why));
      }
    }
    if (alias.target.empty()) {
      const std::vector<std::string>& accepted = alias.accepted;
      if (!accepted.empty() &&
          (!is_scalar || std::find(accepted.begin(), accepted.end(), node.text) == accepted.end())) {
        return report(value_spot, alias.key,
                      fmt::format("expected {}, found {}; {}", accepted.front(), found_text(node), alias.why));
      }
      return warn(key_spot, alias.key, fmt::format("has no effect here: {}", alias.why));
    }
    YamlNode translated = node;
    for (const auto& [from, to] : alias.translations) {
      if (is_scalar && node.text == from) translated.text = to;
    }
    apply_value(*find_setting(alias.target), translated, value_spot, alias.key);
  }

  void apply_text(const Setting& setting, const std::string& text, const Spot& spot) {
    if (holds_secret(text)) return report_secret_value(spot, setting.key);
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.quoted = true;
    node.text = text;
    apply_value(setting, node, spot, setting.key);
  }

  // ---- The environment.

  Spot in_environment(const std::string& name) const {
    const std::string origin = environment_.origin(name);
    return {1, {}, origin, origin};
  }

  void apply_environment() {
    for (const auto& [name, key] :
         {std::pair{"TRAINING_OUTPUT_DIR", "output.run_dir"}, std::pair{"TUNIX_BASE_URL", "tunix.api_base_url"},
          std::pair{"TUNIX_PROJECT_ID", "tunix.project_id"}}) {
      const std::optional<std::string> text = environment_.find(name);
      if (text) apply_text(*find_setting(key), *text, in_environment(name));
    }
    apply_bucket();
    try {
      tunix_mode(environment_);
    } catch (const Error& error) {
      problems_.push_back({in_environment("TUNIX_MODE"), error.what()});
    }
  }

  // TRAINING_OUTPUT_BUCKET replaces the bucket of a gs:// address and nothing else.
  void apply_bucket() {
    const std::optional<std::string> text = environment_.find("TRAINING_OUTPUT_BUCKET");
    if (!text) return;
    const Spot spot = in_environment("TRAINING_OUTPUT_BUCKET");
    std::string bucket = text->substr(0, 5) == "gs://" ? text->substr(5) : *text;
    if (!bucket.empty() && bucket.back() == '/') bucket.pop_back();
    const bool valid = !bucket.empty() && std::all_of(bucket.begin(), bucket.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
    });
    if (!valid) {
      return report(spot, "output.run_dir",
                    fmt::format("expected a bucket such as gs://my-bucket, found \"{}\"", shown_text(*text)));
    }
    std::string& run_dir = loaded_.config.output.run_dir;
    if (run_dir.substr(0, 5) != "gs://") return;
    const size_t end = std::min(run_dir.find('/', 5), run_dir.size());
    run_dir = "gs://" + bucket + run_dir.substr(end);
    given_["output.run_dir"].origin += ", bucket from " + spot.origin;
  }

  // ---- The command line.

  void apply_assignment(const Assignment& assignment, int rank) {
    const std::string& key = assignment.key;
    const Setting* setting = find_setting(key);
    const Alias* alias = find_alias(key);
    const bool is_unknown = setting == nullptr && alias == nullptr;
    const bool is_secret = is_unknown && names_secret(last_name(key));
    const std::string value = is_secret ? "***" : shown_text(assignment.value);
    const bool is_set = assignment.origin == "--set";
    const Spot spot{
        rank,
        {},
        is_set ? fmt::format("--set {}={}", shown_text(key), value) : fmt::format("{} {}", assignment.origin, value),
        assignment.origin};
    if (is_secret) return report_secret_key(spot, key);
    if (is_section(key)) {
      return report(spot, key, fmt::format("is a section; name a key in it, such as {}", first_key_in(key)));
    }
    if (is_unknown) return report_unknown(spot, key, false);
    if (holds_secret(assignment.value)) return report_secret_value(spot, key);

    const Setting* target = setting != nullptr ? setting : find_setting(alias->target);
    const bool is_text = target != nullptr && target->field.type == ValueType::kText;
    if (is_text && !is_set) return apply_text(*target, assignment.value, spot);
    YamlNode node;
    try {
      node = parse_assigned(assignment.value, is_text);
    } catch (const YamlProblem& problem) {
      return report(spot, key, problem.what());
    }
    if (node.kind == YamlNode::Kind::kNothing && node.says_null && target != nullptr) {
      target->field.set(loaded_.config, default_value(*target));
      given_.erase(target->key);
      loaded_.origins[target->key] = assignment.origin;
      return;
    }
    if (setting != nullptr) return apply_value(*setting, node, spot, key);
    apply_alias(*alias, node, spot, spot);
  }

  static YamlNode parse_assigned(const std::string& value, bool is_text) {
    const bool is_quoted = !value.empty() && (value[0] == '"' || value[0] == '\'');
    if (!is_text || is_quoted || value == "null") {
      YamlNode node = parse_yaml(value);
      if (node.kind != YamlNode::Kind::kMap) return node;
    }
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.quoted = is_text;
    node.text = value;
    return node;
  }

  static std::string first_key_in(const std::string& section) {
    for (const std::string& key : setting_keys()) {
      if (key.compare(0, section.size() + 1, section + ".") == 0) return key;
    }
    return "";
  }

  // ---- Values together.

  // The spot of a key that was given with a value (not null); nullptr otherwise.
  const Spot* given(const std::string& key) const {
    const auto found = given_.find(key);
    if (found == given_.end()) return nullptr;
    const Value value = find_setting(key)->field.get(loaded_.config);
    return std::holds_alternative<std::monostate>(value) ? nullptr : &found->second;
  }

  bool was_tried(const std::string& key) const {
    const std::string section = key.substr(0, key.find('.'));
    return failed_.count(key) > 0 || meant_.count(key) > 0 || meant_.count(section) > 0 || failed_.count(section) > 0;
  }

  Spot section_spot(const std::string& section) const {
    const auto found = section_places_.find(section);
    return in_file(found == section_places_.end() ? Place{1, 1} : found->second);
  }

  void check_required() {
    if (given("model.base_model") == nullptr && !was_tried("model.base_model")) {
      report(section_spot("model"), "model.base_model",
             "required, but not given; write the hub id of a Gemma model, such as "
             "google/gemma-2b-it, or a folder");
    }
    const bool has_data = given("dataset.manifest_path") != nullptr || given("dataset.data_path") != nullptr;
    if (!has_data && !was_tried("dataset.manifest_path") && !was_tried("dataset.data_path")) {
      report(section_spot("dataset"), "dataset.data_path",
             "required, but not given; write the JSONL file with the training rows, or a manifest "
             "as dataset.manifest_path");
    }
  }

  void check_model() {
    const Spot* spot = given("model.base_model");
    if (spot == nullptr) return;
    const std::string& name = loaded_.config.model.base_model;
    const std::string problem = model_name_problem(name, loaded_.file);
    if (!problem.empty()) return report(*spot, "model.base_model", problem);
    const Spot* revision = given("model.revision");
    if (revision != nullptr && (!can_be_hub_id(name) || find_configured_path(name, loaded_.file))) {
      warn(*revision, "model.revision", "has no effect, because model.base_model is a folder");
    }
  }

  void check_pairs() {
    refuse_both("training.warmup_steps", "training.warmup_ratio");
    refuse_both("training.batch_size", "training.batch_tokens");
    if (loaded_.config.dataset.validation_fraction > 0) {
      refuse_both("dataset.validation_path", "dataset.validation_fraction");
    }
  }

  void refuse_both(const std::string& a, const std::string& b) {
    const Spot* first = given(a);
    const Spot* second = given(b);
    if (first == nullptr || second == nullptr) return;
    const bool in_order = stands_before(*first, *second);
    const Spot& later = in_order ? *second : *first;
    const Spot& earlier = in_order ? *first : *second;
    const std::string& later_key = in_order ? b : a;
    const std::string& earlier_key = in_order ? a : b;
    const std::string remedy = later.rank == 0 ? "" : fmt::format(", for example with --set {}=null", earlier_key);
    report(later, later_key,
           fmt::format("contradicts {} ({}); keep one of them{}", earlier_key, earlier.where, remedy));
  }

  void check_effects() {
    const RunConfig& config = loaded_.config;
    check_lora();
    if (config.training.lr_scheduler == Scheduler::kConstant && config.training.min_lr_ratio > 0) {
      report(*given("training.min_lr_ratio"), "training.min_lr_ratio",
             "has no effect with training.lr_scheduler: constant, which never falls; remove one of "
             "them");
    }
    const Spot* epochs = given("training.num_epochs");
    const Spot* steps = given("training.max_steps");
    if (epochs != nullptr && steps != nullptr && epochs->rank == steps->rank) {
      warn(*epochs, "training.num_epochs", "has no effect, because training.max_steps wins; keep one of them");
    }
    const bool bf16_weights = config.training.precision == Precision::kBf16 && config.lora.rank == 0;
    if (bf16_weights && given("training.stochastic_rounding") == nullptr) {
      warn(*given("training.precision"), "training.precision",
           "bf16 weights lose updates below a 512th of their size, as most are; set training.stochastic_rounding: "
           "true, or precision: bf16_mixed where there is memory for it");
    }
    if (config.training.stochastic_rounding && !bf16_weights) {
      report(*given("training.stochastic_rounding"), "training.stochastic_rounding",
             "has no effect without training.precision: bf16 and all weights trained (lora.rank: 0); remove it");
    }
    if (config.dataset.format == DataFormat::kTokens && config.dataset.parse_control_tokens) {
      report(*given("dataset.parse_control_tokens"), "dataset.parse_control_tokens",
             "has no effect with dataset.format: tokens, whose rows are ids already; remove it");
    }
    const bool validates = config.dataset.validation_path || config.dataset.validation_fraction > 0;
    if (validates || was_tried("dataset.validation_path") || was_tried("dataset.validation_fraction")) {
      return;
    }
    const std::string needs = "needs validation data; set dataset.validation_path or dataset.validation_fraction";
    if (config.evaluation.keep_best) {
      report(*given("evaluation.keep_best"), "evaluation.keep_best", needs);
    }
    if (const Spot* spot = given("evaluation.early_stopping_patience")) {
      report(*spot, "evaluation.early_stopping_patience", needs);
    }
    if (const Spot* spot = given("evaluation.every")) {
      warn(*spot, "evaluation.every", "has no effect without dataset.validation_path or dataset.validation_fraction");
    }
  }

  void check_lora() {
    if (loaded_.config.lora.rank > 0 || was_tried("lora.rank")) return;
    const Spot* rank = given("lora.rank");
    const bool switched_off = rank != nullptr && rank->rank > 0;
    for (const std::string& key : setting_keys()) {
      if (key.compare(0, 5, "lora.") != 0 || key == "lora.rank") continue;
      const Spot* spot = given(key);
      if (spot == nullptr) continue;
      if (switched_off && spot->rank == 0) {
        warn(*spot, key, fmt::format("has no effect, because {} switches LoRA off", rank->where));
      } else {
        report(*spot, key,
               "has no effect while lora.rank is 0; set lora.rank to train LoRA matrices, or "
               "remove this");
      }
    }
  }

  const LoadOptions& options_;
  EnvironmentReader environment_;
  LoadedConfig loaded_;
  std::vector<Problem> problems_;
  std::vector<Problem> warnings_;
  std::map<std::string, Spot> given_;  // by the setting's key
  std::map<std::string, Place> section_places_;
  std::set<std::string> failed_;  // keys that were given with a problem
  std::set<std::string> meant_;   // keys and sections that an unknown key was close to
};

}  // namespace

LoadedConfig load_config(const std::string& file, const LoadOptions& options) {
  return ConfigLoader(file, options).load();
}

}  // namespace gemma_sft
