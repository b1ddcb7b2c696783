#include "trainer/cli/command_parser.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>

#include "configs/error.h"
#include "configs/nearest_key.h"
#include "trainer/cli/command_help.h"

namespace gemma_sft {
namespace {

std::string option_words(const CLI::Option* option) {
  std::string words;
  for (const std::string& one : option->get_snames()) words += "-" + one + ", ";
  for (const std::string& one : option->get_lnames()) words += "--" + one;
  if (!option->get_type_name().empty()) words += " " + option->get_type_name();
  return words;
}

// The description beside the words, in a column of its own, wrapped at 100.
std::string option_row(const std::string& words, const std::string& description) {
  constexpr size_t kColumn = 28;
  constexpr size_t kWidth = 100;
  std::string row = "  " + words;
  row += row.size() < kColumn - 1 ? std::string(kColumn - row.size(), ' ') : "\n" + std::string(kColumn, ' ');
  size_t used = kColumn;
  for (size_t at = 0; at < description.size();) {
    const size_t space = std::min(description.find(' ', at), description.size());
    const std::string word = description.substr(at, space - at);
    if (used + word.size() > kWidth) {
      while (row.back() == ' ') row.pop_back();
      row += "\n" + std::string(kColumn, ' ');
      used = kColumn;
    }
    row += word + " ";
    used += word.size() + 1;
    at = space + 1;
  }
  row.pop_back();
  return row + "\n";
}

std::string suggestion(const std::string& word, const std::vector<std::string>& known) {
  const Nearest nearest = nearest_word(word, known);
  return nearest.close ? fmt::format("; did you mean {}?", nearest.name) : "";
}

}  // namespace

struct CommandParser::State {
  State(std::string typed, const std::string& words) : program(std::move(typed)), help(help_of(words)) {
    app.set_help_flag();
    app.add_flag("-h,--help", help_asked, "this text");
    app.add_flag("--json", common.json, "stdout is one JSON object");
    app.add_flag("--quiet", common.quiet, "only warnings and errors on stderr");
    app.add_flag("--verbose", common.verbose, "say which files were used");
    app.add_flag("--ascii", common.ascii, "no characters beyond ASCII on the terminal");
  }

  bool is_link() const { return program != "gemma-sft"; }
  // What the user types to get this command.
  std::string name() const { return is_link() ? program : "gemma-sft " + help.words; }
  std::string without_words(const std::string& example) const {
    return example.starts_with(help.words + " ") ? example.substr(help.words.size() + 1) : example;
  }

  CLI::Option* add_text(const std::string& option, const std::string& type, const std::string& text) {
    CLI::Option* made =
        app.add_option(option, texts[option], text)->type_name(type)->allow_extra_args(false)->expected(1)->take_all();
    shown.push_back(made);
    return made;
  }

  // nearest_word takes '-' for '_', so the names are compared in that form.
  std::string option_suggestion(const std::string& word) const {
    std::vector<std::string> names;
    for (const CLI::Option* option : app.get_options()) {
      for (std::string name : option->get_lnames()) {
        std::replace(name.begin(), name.end(), '-', '_');
        names.push_back(name);
      }
    }
    const size_t start = word.find_first_not_of('-');
    const Nearest nearest = nearest_word(start == word.npos ? word : word.substr(start), names);
    if (!nearest.close) return "";
    std::string name = nearest.name;
    std::replace(name.begin(), name.end(), '_', '-');
    return fmt::format("; did you mean --{}?", name);
  }

  const CLI::Option* find_option(const std::string& word) const {
    for (const CLI::Option* option : app.get_options()) {
      if (option->check_name(word)) return option;
    }
    return nullptr;
  }

  std::string describe(const CLI::ParseError& problem) const {
    // A mistyped option is the cause where a required one is missing, so it is told first.
    const std::vector<std::string> rest = app.remaining(true);
    const auto mistyped = std::find_if(
        rest.begin(), rest.end(), [](const std::string& word) { return word.size() > 1 && word.starts_with("-"); });
    if (mistyped != rest.end()) {
      return fmt::format("unknown option {}{}", *mistyped, option_suggestion(*mistyped));
    }
    if (dynamic_cast<const CLI::ExtrasError*>(&problem) != nullptr && !rest.empty()) {
      return fmt::format("unexpected argument {}", in_quotes(rest.back()));
    }
    return problem.what();  // "--config is required"
  }

  std::string program;
  const CommandHelp& help;
  CLI::App app;
  bool help_asked = false;
  CommonArguments common;
  std::map<std::string, std::vector<std::string>> texts;
  std::vector<std::string> repeatable;
  std::vector<CLI::Option*> shown;
};

std::vector<std::string> CommandParser::with_values_apart(const std::vector<std::string>& words) const {
  std::vector<std::string> apart;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") {
      apart.insert(apart.end(), words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
      break;
    }
    const size_t equals = word.starts_with("--") ? word.find('=') : std::string::npos;
    const CLI::Option* option = state_->find_option(word.substr(0, equals));
    const bool takes_value = option != nullptr && option->get_items_expected_min() > 0;
    if (equals != std::string::npos) {
      if (option != nullptr && !takes_value) fail(word.substr(0, equals) + " takes no value");
      apart.push_back(word.substr(0, equals));
      apart.push_back(word.substr(equals + 1));
      continue;
    }
    apart.push_back(word);
    if (!takes_value) continue;
    if (i + 1 == words.size() || words[i + 1] == "--" || state_->find_option(words[i + 1]) != nullptr) {
      fail(fmt::format("{} needs a value{}", word,
                       i + 1 < words.size()
                           ? fmt::format("; if \"{}\" is one, write {}={}", words[i + 1], word, words[i + 1])
                           : ""));
    }
    apart.push_back(words[++i]);
  }
  return apart;
}

CommandParser::CommandParser(const std::string& program, const std::string& words)
    : state_(std::make_unique<State>(program, words)) {}
CommandParser::~CommandParser() = default;

void CommandParser::flag(const std::string& name, bool& target, const std::string& help) {
  state_->shown.push_back(state_->app.add_flag(name, target, help));
}

void CommandParser::text(const std::string& name, const std::string& type, const std::string& help) {
  state_->add_text(name, type, help);
}

void CommandParser::required_text(const std::string& name, const std::string& type, const std::string& help) {
  state_->add_text(name, type, help)->required();
}

void CommandParser::texts(const std::string& name, const std::string& type, const std::string& help) {
  state_->repeatable.push_back(name);
  state_->add_text(name, type, help);
}

void CommandParser::required_list(const std::string& name, const std::string& type, const std::string& help) {
  state_->repeatable.push_back(name);
  CLI::Option* made =
      state_->app.add_option(name, state_->texts[name], help)->type_name(type)->expected(1, 1 << 20)->take_all();
  state_->shown.push_back(made->required());
}

void CommandParser::required_positional(const std::string& name, const std::string& help) {
  state_->app.add_option(name, state_->texts[name], help)
      ->type_name("")
      ->allow_extra_args(false)
      ->expected(1)
      ->required();
}

bool CommandParser::parse(std::vector<std::string> words) {
  State& state = *state_;
  words = with_values_apart(words);
  std::reverse(words.begin(), words.end());
  try {
    state.app.parse(words);
  } catch (const CLI::ParseError& problem) {
    if (state.help_asked || state.app.count("--help") > 0) return false;
    fail(state.describe(problem));
  }
  if (state.help_asked) return false;
  for (const auto& [name, values] : state.texts) {
    const bool many = std::find(state.repeatable.begin(), state.repeatable.end(), name) != state.repeatable.end();
    if (values.size() > 1 && !many) fail(name + " is given more than once");
  }
  return true;
}

std::optional<std::string> CommandParser::find(const std::string& name) const {
  const std::vector<std::string>& values = state_->texts.at(name);
  if (values.empty()) return std::nullopt;
  return values.front();
}

std::string CommandParser::get(const std::string& name) const { return state_->texts.at(name).front(); }
const std::vector<std::string>& CommandParser::all(const std::string& name) const { return state_->texts.at(name); }
CommonArguments CommandParser::common() const { return state_->common; }

std::vector<std::pair<std::string, std::string>> CommandParser::in_order() const {
  std::map<std::string, size_t> taken;
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const CLI::Option* option : state_->app.parse_order()) {
    const auto found = state_->texts.find(option->get_name());
    if (found == state_->texts.end()) continue;
    const size_t index = taken[found->first]++;
    if (index < found->second.size()) pairs.emplace_back(found->first, found->second[index]);
  }
  return pairs;
}

void CommandParser::fail(const std::string& problem) const {
  const std::string name = state_->name();
  throw Error(ErrorKind::kUsage,
              fmt::format("{}: {}\nusage: {} {}\nsee: {} --help", name, problem, name, state_->help.usage, name));
}

void CommandParser::fail_choice(const std::string& name, const std::string& word,
                                const std::vector<std::string>& known) const {
  std::string list;
  for (const std::string& one : known) list += (list.empty() ? "" : ", ") + one;
  fail(fmt::format("{}: expected one of {}, found {}{}", name, list, in_quotes(word), suggestion(word, known)));
}

void CommandParser::fail_number(const std::string& name, const std::string& word, bool whole,
                                const std::string& minimum, const std::string& maximum) const {
  fail(fmt::format("{}: expected a {}number from {}{}, found {}", name, whole ? "whole " : "", minimum,
                   maximum.empty() ? "" : " to " + maximum, in_quotes(word)));
}

std::string CommandParser::help_text() const {
  std::string text = fmt::format("{}: {}\n\nexamples:\n", state_->name(), state_->help.summary);
  for (const std::string& example : state_->help.examples) {
    text += "  " +
            (state_->is_link() ? state_->program + " " + state_->without_words(example) : "gemma-sft " + example) +
            "\n";
  }
  text += fmt::format("\nusage: {} {}\n\noptions:\n", state_->name(), state_->help.usage);
  std::vector<std::pair<std::string, std::string>> rows;
  for (const CLI::Option* option : state_->shown) rows.emplace_back(option_words(option), option->get_description());
  for (const char* common : {"--json", "--quiet", "--verbose", "--ascii", "--help"}) {
    const CLI::Option* option = state_->app.get_option(common);
    rows.emplace_back(option_words(option), option->get_description());
  }
  for (const auto& [words, description] : rows) text += option_row(words, description);
  if (!state_->help.notes.empty()) text += "\n" + state_->help.notes + "\n";
  return text;
}

// ---- options that several commands share

std::string in_quotes(const std::string& text) { return "\"" + text + "\""; }

namespace {

// --set KEY=VALUE
Assignment assignment_from_set(const CommandParser& parser, const std::string& word) {
  const size_t equals = word.find('=');
  if (equals == std::string::npos || equals == 0) {
    parser.fail(fmt::format("--set: expected key=value, such as training.batch_size=8, found {}", in_quotes(word)));
  }
  return {.key = word.substr(0, equals), .value = word.substr(equals + 1), .origin = "--set"};
}

}  // namespace

void add_value_options(CommandParser& parser) {
  parser.texts("--set", "KEY=VALUE", "another value for a key of the configuration; may be given again and again");
  parser.text("--data", "FILE", "the training rows: stands for dataset.data_path");
}

std::vector<Assignment> assignments_of(const CommandParser& parser) {
  static const std::map<std::string, std::string> keys = {
      {"--data", "dataset.data_path"}, {"--output-dir", "output.run_dir"}, {"--max-samples", "dataset.max_samples"}};
  std::vector<Assignment> assignments;
  for (const auto& [name, value] : parser.in_order()) {
    if (name == "--set") assignments.push_back(assignment_from_set(parser, value));
    const auto key = keys.find(name);
    if (key == keys.end()) continue;
    if (value.empty()) parser.fail(name + " needs a value");
    if (name == "--max-samples") parser.find_number<int64_t>(name, 1, kAnyCount);
    assignments.push_back({.key = key->second, .value = value, .origin = name});
  }
  return assignments;
}

void add_device_option(CommandParser& parser) {
  parser.text("--device", "DEVICE", "auto, cpu, cuda or cuda:N (default: auto, a GPU where there is one)");
}

std::string device_of(const CommandParser& parser) {
  const std::string device = parser.find("--device").value_or("auto");
  const bool numbered = device.starts_with("cuda:") && device.size() > 5 && device.size() < 9 &&
                        device.find_first_not_of("0123456789", 5) == std::string::npos;
  // What these words mean elsewhere; the nearest word would be cpu.
  if (device == "gpu")
    parser.fail("--device: expected one of auto, cpu, cuda, cuda:N, found \"gpu\"; a GPU is cuda here");
  if (device == "tpu") {
    parser.fail(
        "--device: expected one of auto, cpu, cuda, cuda:N, found \"tpu\"; TPUs are reached through the Tunix job "
        "service: give the configuration a tunix: section");
  }
  if (device != "auto" && device != "cpu" && device != "cuda" && !numbered) {
    parser.fail_choice("--device", device, {"auto", "cpu", "cuda", "cuda:N"});
  }
  return device;
}

void add_sampling_options(CommandParser& parser) {
  parser.text("--max-new-tokens", "N", "stop after this many new tokens (default: 256)");
  parser.text("--temperature", "T", "sample with this temperature; 0 takes the most likely token (default: 0)");
  parser.text("--top-k", "K", "sample among the K most likely tokens; 0: among all (default: 0)");
  parser.text("--top-p", "P", "sample among the most likely tokens that together have this probability (default: 1)");
  parser.text("--seed", "N", "seed of the sampling (default: 42)");
  parser.text("--precision", "P", "fp32, bf16_mixed or bf16 (default: bf16 on a GPU, fp32 on the CPU)");
}

SamplingArguments sampling_of(const CommandParser& parser) {
  SamplingArguments sampling;
  sampling.max_new_tokens =
      parser.find_number<int64_t>("--max-new-tokens", 1, 1'000'000).value_or(sampling.max_new_tokens);
  sampling.temperature = parser.find_number<double>("--temperature", 0.0, 100.0).value_or(sampling.temperature);
  sampling.top_k = parser.find_number<int64_t>("--top-k", 0, kAnyCount).value_or(sampling.top_k);
  sampling.top_p = parser.find_number<double>("--top-p", 0.0, 1.0).value_or(sampling.top_p);
  if (sampling.top_p == 0) parser.fail("--top-p: expected a number above 0, found \"0\"");
  sampling.seed = parser.find_number<uint64_t>("--seed", 0, UINT64_MAX).value_or(sampling.seed);
  return sampling;
}

void require_one_of(const CommandParser& parser, const std::string& first, const std::string& second) {
  const bool has_first = parser.find(first).has_value();
  const bool has_second = parser.find(second).has_value();
  if (!has_first && !has_second) parser.fail(fmt::format("{} or {} is required", first, second));
  if (has_first && has_second) parser.fail(fmt::format("{} and {} exclude each other", first, second));
}

}  // namespace gemma_sft
