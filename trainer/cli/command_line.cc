#include "trainer/cli/command_line.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <map>
#include <utility>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "configs/choice_names.h"
#include "configs/error.h"
#include "configs/nearest_key.h"

namespace gemma_sft {
namespace {

// ---- what there is
// ----------------------------------------------------------------------------------------------------

struct CommandHelp {
  std::string words;  // "train", "config show"
  std::string summary;
  std::vector<std::string> examples;  // without the program's name
  std::string usage;                  // behind the words
  std::string notes = {};             // after the options
  bool listed = true;                 // in the overview
};

const std::vector<CommandHelp>& commands() {
  static const std::vector<CommandHelp> table = {
      {"train",
       "fine-tune a model, or only check what would be run (--dry-run)",
       {"train --config configs/sft_tiny.yaml --dry-run",
        "train --config my.yaml --data rows.jsonl --output runs/first",
        "train --config my.yaml --set training.learning_rate=1e-5 --set lora.rank=16"},
       "--config FILE [options]",
       "The same command, started again, continues the same run. SIGTERM and SIGINT finish the step, save a checkpoint "
       "and\n"
       "end with 128 + the signal's number; a second one stops at once."},
      {"generate",
       "answer prompts with a model",
       {"generate --model runs/first/final_model --prompt \"What is 2 + 3?\"",
        "generate --model final_model --input prompts.jsonl --output answers.jsonl"},
       "--model DIR (--prompt TEXT | --input FILE) [options]",
       "Input rows are {id, prompt} or {id, input_ids}; output rows are {id, output_ids, text}: the new tokens only, "
       "the\n"
       "stop token included."},
      {"eval",
       "answer a data set and count how many answers are exactly right",
       {"eval --model runs/first/final_model --input test.jsonl --json"},
       "--model DIR --input FILE [options]"},
      {"export",
       "write the result of a run in another form",
       {"export --input runs/first/final_model --format merged --output merged_model"},
       "--input DIR --output DIR [options]"},
      {"model init",
       "make a model folder with random weights",
       {"model init --preset tiny-gemma-3 --tokenizer tok --output tiny --seed 1",
        "model init --config config.json --tokenizer tok --output tiny"},
       "(--preset NAME | --config FILE) --tokenizer DIR --output DIR [options]"},
      {"tokenizer train",
       "make a tokenizer of Gemma's kind from text files",
       {"tokenizer train --corpus corpus.txt --vocab-size 8192 --output tok"},
       "--corpus FILE... --vocab-size N --output DIR"},
      {"tokenize",
       "turn rows into token ids and loss masks",
       {"tokenize --model tok --input rows.jsonl --output ids.jsonl"},
       "--model DIR --input FILE.jsonl [options]",
       "Training examples become {id, input_ids, loss_mask}. Rows with \"text\" are tokenised as they are: no "
       "template, no\n"
       "BOS, mask 0."},
      {"explain",
       "show what the model sees of one row: text, pieces, ids, mask, positions",
       {"explain --config my.yaml --row 17"},
       "--config FILE --row N [options]"},
      {"config show",
       "print every setting of a configuration and where its value comes from",
       {"config show --config my.yaml", "config show --config my.yaml --set training.batch_size=8 --json"},
       "--config FILE [options]"},
      {"config explain",
       "tell what a key means, its type, range and default",
       {"config explain training.learning_rate"},
       "KEY"},
      {"config schema",
       "print the JSON Schema of the configuration file",
       {"config schema > schema.json"},
       "[options]"},
      {"verify",
       "check the digests of a checkpoint, or of every checkpoint of a run",
       {"verify artifacts/training_runs/run_0123456789ab", "verify runs/first/checkpoint-500"},
       "DIR"},
      {"eval_generate",
       "answers to an evaluation set as traces, or a job of a training service",
       {"--model runs/first/final_model --eval-set eval_v1.jsonl --output eval_after.jsonl"},
       "(--model DIR --eval-set FILE --output FILE | --job-id ID (--watch | --download --output-dir DIR))",
       "The job service behind --job-id is not part of this version; it is refused by name.",
       false},
  };
  return table;
}

const CommandHelp& help_of(const std::string& words) {
  for (const CommandHelp& command : commands()) {
    if (command.words == words) return command;
  }
  throw Error(ErrorKind::kInternal, "no help for the command " + words);
}

std::string overview() {
  std::string text =
      "gemma-sft: supervised fine-tuning of Gemma models\n\nexamples:\n"
      "  gemma-sft train --config configs/sft_tiny.yaml --dry-run\n"
      "  gemma-sft train --config my.yaml\n"
      "  gemma-sft generate --model final_model --prompt \"What is 2 + 3?\"\n\n"
      "usage: gemma-sft COMMAND [options]\n\ncommands:\n";
  for (const CommandHelp& command : commands()) {
    if (command.listed) text += fmt::format("  {:<16} {}\n", command.words, command.summary);
  }
  return text +
         "\noptions:\n"
         "  -h, --help       this text; after a command: help on that command\n"
         "  --version        version of the program; with --json as one JSON object\n"
         "\nexit codes: 0 ok, 2 usage or configuration, 3 data, 9 input/output, 11 memory, 12 model, 13 checkpoint,\n"
         "14 non-finite numbers, 70 internal error, 128 + n stopped by signal n\n";
}

std::string group_help(const std::string& group) {
  std::string text = fmt::format("usage: gemma-sft {} COMMAND [options]\n\ncommands:\n", group);
  for (const CommandHelp& command : commands()) {
    if (command.words.starts_with(group + " ")) text += fmt::format("  {:<16} {}\n", command.words, command.summary);
  }
  return text + fmt::format("\nsee: gemma-sft {} COMMAND --help\n", group);
}

// ---- one command
// --------------------------------------------------------------------------------------------------------

std::string in_quotes(const std::string& text) { return "\"" + text + "\""; }

// CLI11 with what it lacks: the nearest known name, one kind of error, "--name=" for an empty value, and a missing
// value that is noticed instead of the next option being taken for it.
class CommandParser {
 public:
  CommandParser(std::string program, const std::string& words) : program_(std::move(program)), help_(help_of(words)) {
    app_.set_help_flag();
    app_.add_flag("-h,--help", help_asked_, "this text");
    app_.add_flag("--json", common_.json, "stdout is one JSON object");
    app_.add_flag("--quiet", common_.quiet, "only warnings and errors on stderr");
    app_.add_flag("--verbose", common_.verbose, "say which files were used");
    app_.add_flag("--ascii", common_.ascii, "no characters beyond ASCII on the terminal");
  }

  void flag(const std::string& name, bool& target, const std::string& help) {
    placed(app_.add_flag(name, target, help));
  }
  // The text as it is.
  CLI::Option* text(const std::string& name, const std::string& type, const std::string& help) {
    std::vector<std::string>& values = texts_[name];
    return placed(
        app_.add_option(name, values, help)->type_name(type)->allow_extra_args(false)->expected(1)->take_all());
  }
  CLI::Option* texts(const std::string& name, const std::string& type, const std::string& help) {
    repeatable_.push_back(name);
    return text(name, type, help);
  }
  // One occurrence may have several values: --corpus a.txt b.txt
  CLI::Option* list(const std::string& name, const std::string& type, const std::string& help) {
    repeatable_.push_back(name);
    return placed(app_.add_option(name, texts_[name], help)->type_name(type)->expected(1, 1 << 20)->take_all());
  }
  void positional(const std::string& name, const std::string& help) {
    app_.add_option(name, texts_[name], help)->type_name("")->allow_extra_args(false)->expected(1)->required();
    positionals_.push_back(name);
  }

  bool parse(std::vector<std::string> words) {
    words = with_values_apart(std::move(words));
    std::reverse(words.begin(), words.end());
    try {
      app_.parse(words);
    } catch (const CLI::ParseError& problem) {
      if (help_asked_ || app_.count("--help") > 0) return false;
      fail(describe(problem));
    }
    if (help_asked_) return false;
    for (const auto& [name, values] : texts_) {
      const bool many = std::find(repeatable_.begin(), repeatable_.end(), name) != repeatable_.end();
      if (values.size() > 1 && !many) fail(name + " is given more than once");
    }
    return true;
  }

  [[noreturn]] void fail(const std::string& problem) const {
    throw Error(ErrorKind::kUsage,
                fmt::format("{}: {}\nusage: {} {}\nsee: {} --help", name(), problem, name(), help_.usage, name()));
  }

  std::optional<std::string> find(const std::string& name) const {
    const std::vector<std::string>& values = texts_.at(name);
    if (values.empty()) return std::nullopt;
    return values.front();
  }
  std::string get(const std::string& name) const { return texts_.at(name).front(); }
  const std::vector<std::string>& all(const std::string& name) const { return texts_.at(name); }

  template <typename Number>
  std::optional<Number> find_number(const std::string& name, Number minimum, Number maximum) const {
    const std::optional<std::string> word = find(name);
    if (!word) return std::nullopt;
    Number number{};
    const char* end = word->data() + word->size();
    const auto [rest, error] = std::from_chars(word->data(), end, number);
    if (error != std::errc() || rest != end || !(number >= minimum && number <= maximum)) {
      const std::string upper = maximum == std::numeric_limits<Number>::max() ? "" : fmt::format(" to {}", maximum);
      fail(fmt::format("{}: expected a {}number from {}{}, found {}", name, std::is_integral_v<Number> ? "whole " : "",
                       minimum, upper, in_quotes(*word)));
    }
    return number;
  }

  template <typename Enum>
  std::optional<Enum> find_choice(const std::string& name) const {
    const std::optional<std::string> word = find(name);
    if (!word) return std::nullopt;
    const auto& names = Choices<Enum>::names;
    for (size_t i = 0; i < names.size(); ++i) {
      if (*word == names[i]) return static_cast<Enum>(i);
    }
    fail_choice(name, *word, {names.begin(), names.end()});
  }

  [[noreturn]] void fail_choice(const std::string& name, const std::string& word,
                                const std::vector<std::string>& known) const {
    std::string list;
    for (const std::string& one : known) list += (list.empty() ? "" : ", ") + one;
    fail(fmt::format("{}: expected one of {}, found {}{}", name, list, in_quotes(word), suggestion(word, known)));
  }

  // Names of the text options in the order of the command line, one entry per occurrence, with their values.
  std::vector<std::pair<std::string, std::string>> in_order() const {
    std::map<std::string, size_t> taken;
    std::vector<std::pair<std::string, std::string>> pairs;
    for (const CLI::Option* option : app_.parse_order()) {
      const auto found = texts_.find(option->get_name());
      if (found == texts_.end()) continue;
      const size_t index = taken[found->first]++;
      if (index < found->second.size()) pairs.emplace_back(found->first, found->second[index]);
    }
    return pairs;
  }

  std::string help_text() const {
    std::string text = fmt::format("{}: {}\n\nexamples:\n", name(), help_.summary);
    for (const std::string& example : help_.examples) {
      text += "  " + (is_link() ? program_ + " " + without_words(example) : "gemma-sft " + example) + "\n";
    }
    text += fmt::format("\nusage: {} {}\n\noptions:\n", name(), help_.usage);
    std::vector<std::pair<std::string, std::string>> rows;
    for (const CLI::Option* option : shown_) rows.emplace_back(option_words(option), option->get_description());
    for (const char* common : {"--json", "--quiet", "--verbose", "--ascii", "--help"}) {
      const CLI::Option* option = app_.get_option(common);
      rows.emplace_back(option_words(option), option->get_description());
    }
    for (const auto& [words, description] : rows) text += option_row(words, description);
    if (!help_.notes.empty()) text += "\n" + help_.notes + "\n";
    return text;
  }

  CommonArguments common() const { return common_; }

 private:
  bool is_link() const { return program_ != "gemma-sft"; }
  // What the user types to get this command.
  std::string name() const { return is_link() ? program_ : "gemma-sft " + help_.words; }
  std::string without_words(const std::string& example) const {
    return example.starts_with(help_.words + " ") ? example.substr(help_.words.size() + 1) : example;
  }

  CLI::Option* placed(CLI::Option* option) {
    shown_.push_back(option);
    return option;
  }

  static std::string option_words(const CLI::Option* option) {
    std::string words;
    for (const std::string& one : option->get_snames()) words += "-" + one + ", ";
    for (const std::string& one : option->get_lnames()) words += "--" + one;
    if (!option->get_type_name().empty()) words += " " + option->get_type_name();
    return words;
  }

  // The description beside the words, in a column of its own, wrapped at 100.
  static std::string option_row(const std::string& words, const std::string& description) {
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

  // nearest_word takes '-' for '_', so the names are compared in that form.
  std::string option_suggestion(const std::string& word) const {
    std::vector<std::string> names;
    for (const CLI::Option* option : app_.get_options()) {
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
    for (const CLI::Option* option : app_.get_options()) {
      if (option->check_name(word)) return option;
    }
    return nullptr;
  }

  std::vector<std::string> with_values_apart(std::vector<std::string> words) const {
    std::vector<std::string> apart;
    for (size_t i = 0; i < words.size(); ++i) {
      const std::string& word = words[i];
      if (word == "--") {
        apart.insert(apart.end(), words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
        break;
      }
      const size_t equals = word.starts_with("--") ? word.find('=') : std::string::npos;
      const CLI::Option* option = find_option(word.substr(0, equals));
      const bool takes_value = option != nullptr && option->get_items_expected_min() > 0;
      if (equals != std::string::npos) {
        if (option != nullptr && !takes_value) fail(word.substr(0, equals) + " takes no value");
        apart.push_back(word.substr(0, equals));
        apart.push_back(word.substr(equals + 1));
        continue;
      }
      apart.push_back(word);
      if (!takes_value) continue;
      if (i + 1 == words.size() || words[i + 1] == "--" || find_option(words[i + 1]) != nullptr) {
        fail(fmt::format("{} needs a value{}", word,
                         i + 1 < words.size()
                             ? fmt::format("; if \"{}\" is one, write {}={}", words[i + 1], word, words[i + 1])
                             : ""));
      }
      apart.push_back(words[++i]);
    }
    return apart;
  }

  static std::string suggestion(const std::string& word, const std::vector<std::string>& known) {
    const Nearest nearest = nearest_word(word, known);
    return nearest.close ? fmt::format("; did you mean {}?", nearest.name) : "";
  }

  std::string describe(const CLI::ParseError& problem) const {
    // A mistyped option is the cause where a required one is missing, so it is told first.
    const std::vector<std::string> rest = app_.remaining(true);
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

  std::string program_;
  const CommandHelp& help_;
  CLI::App app_;
  bool help_asked_ = false;
  CommonArguments common_;
  std::map<std::string, std::vector<std::string>> texts_;
  std::vector<std::string> repeatable_;
  std::vector<std::string> positionals_;
  std::vector<CLI::Option*> shown_;
};

// ---- pieces that several commands share
// -----------------------------------------------------------------------------------

constexpr int64_t kAnyCount = std::numeric_limits<int64_t>::max();

Assignment assignment_from_set(const CommandParser& parser, const std::string& word) {
  const size_t equals = word.find('=');
  if (equals == std::string::npos || equals == 0) {
    parser.fail(fmt::format("--set: expected key=value, such as training.batch_size=8, found {}", in_quotes(word)));
  }
  return {.key = word.substr(0, equals), .value = word.substr(equals + 1), .origin = "--set"};
}

void add_set_option(CommandParser& parser) {
  parser.texts("--set", "KEY=VALUE", "another value for a key of the configuration; may be given again and again");
}

void add_device_option(CommandParser& parser) {
  parser.text("--device", "DEVICE", "auto, cpu, cuda or cuda:N (default: auto, a GPU where there is one)");
}

std::string device_of(const CommandParser& parser) {
  const std::string device = parser.find("--device").value_or("auto");
  const bool numbered = device.starts_with("cuda:") && device.size() > 5 && device.size() < 9 &&
                        device.find_first_not_of("0123456789", 5) == std::string::npos;
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
  if (sampling.top_p == 0) parser.fail("--top-p: expected a number above 0 and at most 1, found \"0\"");
  sampling.seed = parser.find_number<uint64_t>("--seed", 0, UINT64_MAX).value_or(sampling.seed);
  return sampling;
}

void require_one_of(const CommandParser& parser, const std::string& first, const std::string& second) {
  const bool has_first = parser.find(first).has_value();
  const bool has_second = parser.find(second).has_value();
  if (!has_first && !has_second) parser.fail(fmt::format("{} or {} is required", first, second));
  if (has_first && has_second) parser.fail(fmt::format("{} and {} exclude each other", first, second));
}

// ---- the commands
// -----------------------------------------------------------------------------------------------------------

using Words = std::vector<std::string>;

// Declares, parses, and turns into arguments; the help text where that is asked for.
template <typename Declare, typename Fill>
CommandLine run_parser(const std::string& program, const std::string& words, const Words& rest, Declare declare,
                       Fill fill) {
  CommandParser parser(program, words);
  declare(parser);
  if (!parser.parse(rest)) return {parser.common(), HelpArguments{parser.help_text()}};
  return {parser.common(), fill(parser)};
}

CommandLine parse_train(const std::string& program, const Words& rest) {
  static const std::map<std::string, std::string> keys = {
      {"--data", "dataset.data_path"}, {"--output-dir", "output.run_dir"}, {"--max-samples", "dataset.max_samples"}};
  bool dry_run = false;
  return run_parser(
      program, "train", rest,
      [&](CommandParser& parser) {
        parser.text("--config", "FILE", "the configuration (YAML); required")->required();
        parser.flag("--dry-run", dry_run, "check configuration, manifest and places, then exit; makes nothing");
        parser.text("--resume", "MODE",
                    "auto: continue this run where it stopped (default); never: take a new folder; or a checkpoint "
                    "folder or run folder to start from");
        add_set_option(parser);
        add_device_option(parser);
        parser.text("--data", "FILE", "the training rows: stands for dataset.data_path");
        parser.text("--output", "DIR", "the run folder itself");
        parser.text("--output-dir", "DIR", "the folder that run_<id> is made in: stands for output.run_dir");
        parser.text("--run-id", "ID", "name of the run (default: 12 hex digits of the configuration's SHA-256)");
        parser.text("--max-samples", "N", "train on the first N good rows: stands for dataset.max_samples");
        parser.texts("--allow-changed", "WHAT", "continue although data, config or tokenizer changed; may be repeated");
      },
      [&](const CommandParser& parser) {
        TrainArguments train;
        train.config = parser.get("--config");
        train.dry_run = dry_run;
        train.resume = parser.find("--resume").value_or("auto");
        if (train.resume.empty()) parser.fail("--resume: expected auto, never or a folder, found \"\"");
        for (const auto& [name, value] : parser.in_order()) {
          if (name == "--set") train.assignments.push_back(assignment_from_set(parser, value));
          const auto key = keys.find(name);
          if (key == keys.end()) continue;
          if (value.empty()) parser.fail(name + " needs a value");
          if (name == "--max-samples") parser.find_number<int64_t>(name, 1, kAnyCount);
          train.assignments.push_back({.key = key->second, .value = value, .origin = name});
        }
        train.device = device_of(parser);
        train.output = parser.find("--output");
        train.run_id = parser.find("--run-id");
        if (train.output && parser.find("--output-dir")) {
          parser.fail("--output (the run folder) and --output-dir (its parent) exclude each other");
        }
        for (const std::string& list : parser.all("--allow-changed")) {
          for (size_t at = 0; at <= list.size();) {
            const size_t comma = std::min(list.find(',', at), list.size());
            const std::string word = list.substr(at, comma - at);
            static const std::array<std::string, 3> known = {"data", "config", "tokenizer"};
            const auto found = std::find(known.begin(), known.end(), word);
            if (found == known.end()) parser.fail_choice("--allow-changed", word, {known.begin(), known.end()});
            train.allowed_changes.insert(static_cast<AllowedChange>(found - known.begin()));
            at = comma + 1;
          }
        }
        return train;
      });
}

std::vector<Assignment> set_assignments(const CommandParser& parser) {
  std::vector<Assignment> assignments;
  for (const std::string& word : parser.all("--set")) assignments.push_back(assignment_from_set(parser, word));
  return assignments;
}

CommandLine parse_config_schema(const std::string& program, const Words& rest) {
  return run_parser(
      program, "config schema", rest, [](CommandParser&) {},
      [](const CommandParser&) { return ConfigSchemaArguments{}; });
}

CommandLine parse_config_show(const std::string& program, const Words& rest) {
  return run_parser(
      program, "config show", rest,
      [](CommandParser& parser) {
        parser.text("--config", "FILE", "the configuration (YAML); required")->required();
        add_set_option(parser);
      },
      [](const CommandParser& parser) {
        return ConfigShowArguments{.config = parser.get("--config"), .assignments = set_assignments(parser)};
      });
}

CommandLine parse_config_explain(const std::string& program, const Words& rest) {
  return run_parser(
      program, "config explain", rest,
      [](CommandParser& parser) { parser.positional("KEY", "a key, such as training.learning_rate, or a section"); },
      [](const CommandParser& parser) { return ConfigExplainArguments{parser.get("KEY")}; });
}

CommandLine parse_tokenize(const std::string& program, const Words& rest) {
  TokenizeArguments tokenize;
  return run_parser(
      program, "tokenize", rest,
      [&](CommandParser& parser) {
        parser.text("--model", "DIR", "a folder with tokenizer.model or tokenizer.json, or the file itself; required")
            ->required();
        parser.text("--input", "FILE", "rows (JSONL); required")->required();
        parser.text("--output", "FILE", "where the token rows go (default: stdout)");
        parser.flag("--add-bos", tokenize.add_bos, "begin \"text\" rows with BOS");
        parser.flag("--parse-control-tokens", tokenize.parse_control_tokens,
                    "control tokens spelled in the text become their ids, as in transformers");
      },
      [&](const CommandParser& parser) {
        tokenize.model = parser.get("--model");
        tokenize.input = parser.get("--input");
        tokenize.output = parser.find("--output");
        if (parser.common().json && !tokenize.output) parser.fail("--json (a summary on stdout): --output is required");
        return tokenize;
      });
}

CommandLine parse_explain(const std::string& program, const Words& rest) {
  return run_parser(
      program, "explain", rest,
      [](CommandParser& parser) {
        parser.text("--config", "FILE", "the configuration (YAML); required")->required();
        parser.text("--row", "N", "row of the data file, from 1 (blank lines do not count); required")->required();
        add_set_option(parser);
      },
      [](const CommandParser& parser) {
        return ExplainArguments{.config = parser.get("--config"),
                                .assignments = set_assignments(parser),
                                .row = *parser.find_number<int64_t>("--row", 1, kAnyCount)};
      });
}

CommandLine parse_verify(const std::string& program, const Words& rest) {
  return run_parser(
      program, "verify", rest,
      [](CommandParser& parser) { parser.positional("DIR", "a checkpoint folder or a run folder"); },
      [](const CommandParser& parser) { return VerifyArguments{parser.get("DIR")}; });
}

CommandLine parse_tokenizer_train(const std::string& program, const Words& rest) {
  return run_parser(
      program, "tokenizer train", rest,
      [](CommandParser& parser) {
        parser.list("--corpus", "FILE...", "text files (UTF-8); required")->required();
        parser.text("--vocab-size", "N", "number of pieces; required")->required();
        parser.text("--output", "DIR", "folder for tokenizer.model, tokenizer.json, tokenizer_config.json; required")
            ->required();
      },
      [](const CommandParser& parser) {
        return TokenizerTrainArguments{.corpus = parser.all("--corpus"),
                                       .vocab_size = *parser.find_number<int64_t>("--vocab-size", 1, 10'000'000),
                                       .output = parser.get("--output")};
      });
}

CommandLine parse_generate(const std::string& program, const Words& rest) {
  GenerateArguments generate;
  return run_parser(
      program, "generate", rest,
      [&](CommandParser& parser) {
        parser.text("--model", "DIR", "a model folder, or a hub id in the local cache; required")->required();
        parser.text("--revision", "NAME", "branch, tag or commit of a hub id (default: main)");
        parser.text("--adapter", "DIR", "a PEFT folder (LoRA) to put on the model");
        parser.text("--base", "DIR", "the base model, where --model is a PEFT folder (default: what it names)");
        parser.text("--prompt", "TEXT", "one prompt");
        parser.text("--input", "FILE", "many prompts (JSONL)");
        parser.text("--output", "FILE", "where the answers go (default: stdout)");
        add_sampling_options(parser);
        parser.flag("--ignore-eos", generate.ignore_eos, "go on after a stop token");
        parser.flag("--raw", generate.raw, "no chat template: the prompt is continued as it is, after BOS");
        parser.flag("--parse-control-tokens", generate.parse_control_tokens,
                    "control tokens spelled in a prompt become their ids, as in transformers");
        add_device_option(parser);
      },
      [&](const CommandParser& parser) {
        require_one_of(parser, "--prompt", "--input");
        generate.model = parser.get("--model");
        generate.revision = parser.find("--revision");
        generate.adapter = parser.find("--adapter");
        generate.base = parser.find("--base");
        generate.precision = parser.find_choice<Precision>("--precision");
        generate.prompt = parser.find("--prompt");
        generate.input = parser.find("--input");
        generate.output = parser.find("--output");
        if (parser.common().json && generate.input && !generate.output) {
          parser.fail("--json (a summary on stdout): --output is required");
        }
        generate.sampling = sampling_of(parser);
        generate.device = device_of(parser);
        return generate;
      });
}

CommandLine parse_eval(const std::string& program, const Words& rest) {
  return run_parser(
      program, "eval", rest,
      [](CommandParser& parser) {
        parser.text("--model", "DIR", "a model folder, or a hub id in the local cache; required")->required();
        parser.text("--adapter", "DIR", "a PEFT folder (LoRA) to put on the model");
        parser.text("--base", "DIR", "the base model, where --model is a PEFT folder (default: what it names)");
        parser.text("--input", "FILE", "rows with prompt and response (JSONL); required")->required();
        parser.text("--output", "FILE", "where every answer goes (JSONL)");
        parser.text("--format", "FORMAT", "training_example, tunix_sft or trace (default: training_example)");
        parser.text("--max-samples", "N", "only the first N rows");
        add_sampling_options(parser);
        add_device_option(parser);
      },
      [](const CommandParser& parser) {
        EvalArguments eval;
        eval.model = parser.get("--model");
        eval.adapter = parser.find("--adapter");
        eval.base = parser.find("--base");
        eval.precision = parser.find_choice<Precision>("--precision");
        eval.input = parser.get("--input");
        eval.output = parser.find("--output");
        eval.format = parser.find_choice<DataFormat>("--format").value_or(eval.format);
        if (eval.format == DataFormat::kTokens) {
          parser.fail_choice("--format", "tokens", {"training_example", "tunix_sft", "trace"});
        }
        eval.sampling = sampling_of(parser);
        eval.max_samples = parser.find_number<int64_t>("--max-samples", 1, kAnyCount);
        eval.device = device_of(parser);
        return eval;
      });
}

CommandLine parse_export(const std::string& program, const Words& rest) {
  return run_parser(
      program, "export", rest,
      [](CommandParser& parser) {
        parser.text("--input", "DIR", "a run folder, its final_model or a PEFT folder; required")->required();
        parser.text("--base", "DIR", "the base model (default: what the PEFT folder names)");
        parser.text("--format", "FORMAT", "merged: one full model; peft: the adapter alone (default: merged)");
        parser.text("--dtype", "DTYPE", "fp32, bf16 or fp16 (default: that of the base files)");
        parser.text("--output", "DIR", "a new folder; required")->required();
      },
      [](const CommandParser& parser) {
        ExportArguments arguments;
        arguments.input = parser.get("--input");
        arguments.base = parser.find("--base");
        const std::string format = parser.find("--format").value_or("merged");
        if (format != "merged" && format != "peft") parser.fail_choice("--format", format, {"merged", "peft"});
        arguments.format = format == "merged" ? ExportFormat::kMerged : ExportFormat::kPeft;
        arguments.dtype = parser.find_choice<ModelDtype>("--dtype");
        arguments.output = parser.get("--output");
        return arguments;
      });
}

CommandLine parse_model_init(const std::string& program, const Words& rest) {
  return run_parser(
      program, "model init", rest,
      [](CommandParser& parser) {
        parser.text("--preset", "NAME", "a shape by name, such as gemma-3-270m or tiny-gemma-3");
        parser.text("--config", "FILE", "a Hugging Face config.json");
        parser.text("--tokenizer", "DIR", "the folder whose tokenizer files are copied; required")->required();
        parser.text("--output", "DIR", "a new folder; required")->required();
        parser.text("--dtype", "DTYPE", "fp32, bf16 or fp16 (default: what the config.json says, else bf16)");
        parser.text("--seed", "N", "seed of the weights (default: 42)");
      },
      [](const CommandParser& parser) {
        require_one_of(parser, "--preset", "--config");
        ModelInitArguments init;
        init.preset = parser.find("--preset");
        init.config = parser.find("--config");
        init.tokenizer = parser.get("--tokenizer");
        init.output = parser.get("--output");
        init.dtype = parser.find_choice<ModelDtype>("--dtype");
        init.seed = parser.find_number<uint64_t>("--seed", 0, UINT64_MAX).value_or(init.seed);
        return init;
      });
}

CommandLine parse_eval_generate(const std::string& program, const Words& rest) {
  EvalGenerateArguments arguments;
  return run_parser(
      program, "eval_generate", rest,
      [&](CommandParser& parser) {
        parser.text("--job-id", "ID", "a job of a training service");
        parser.flag("--watch", arguments.watch, "follow the job until it ends");
        parser.flag("--download", arguments.download, "fetch the job's model");
        parser.text("--output-dir", "DIR", "where the fetched model goes");
        parser.text("--model", "DIR", "a model folder, or a hub id in the local cache");
        parser.text("--eval-set", "FILE", "rows {id, prompt, expected_answer, ...} (JSONL)");
        parser.text("--output", "FILE", "where the traces go (JSONL)");
        parser.text("--seed", "N", "seed (default: 42)");
        parser.text("--max-examples", "N", "only the first N rows");
        add_device_option(parser);
      },
      [&](const CommandParser& parser) {
        arguments.job_id = parser.find("--job-id");
        arguments.output_dir = parser.find("--output-dir");
        arguments.model = parser.find("--model");
        arguments.eval_set = parser.find("--eval-set");
        arguments.output = parser.find("--output");
        arguments.seed = parser.find_number<uint64_t>("--seed", 0, UINT64_MAX).value_or(arguments.seed);
        arguments.max_examples = parser.find_number<int64_t>("--max-examples", 1, kAnyCount);
        arguments.device = device_of(parser);
        if (arguments.job_id) {
          if (!arguments.watch && !arguments.download) parser.fail("--job-id: --watch or --download is required");
          if (arguments.download && !arguments.output_dir) parser.fail("--download: --output-dir is required");
          if (arguments.model || arguments.eval_set) parser.fail("--job-id and --model exclude each other");
          return arguments;
        }
        for (const auto& [given, name] : {std::pair(arguments.model.has_value(), "--model"),
                                          std::pair(arguments.eval_set.has_value(), "--eval-set"),
                                          std::pair(arguments.output.has_value(), "--output")}) {
          if (!given) parser.fail(fmt::format("{} is required", name));
        }
        if (arguments.watch || arguments.download || arguments.output_dir) {
          parser.fail("--watch, --download and --output-dir: --job-id is required");
        }
        return arguments;
      });
}

using ParseFunction = CommandLine (*)(const std::string&, const Words&);

const std::map<std::string, ParseFunction>& parsers() {
  static const std::map<std::string, ParseFunction> table = {{"train", parse_train},
                                                             {"config schema", parse_config_schema},
                                                             {"config show", parse_config_show},
                                                             {"config explain", parse_config_explain},
                                                             {"tokenize", parse_tokenize},
                                                             {"explain", parse_explain},
                                                             {"verify", parse_verify},
                                                             {"tokenizer train", parse_tokenizer_train},
                                                             {"generate", parse_generate},
                                                             {"eval", parse_eval},
                                                             {"export", parse_export},
                                                             {"model init", parse_model_init},
                                                             {"eval_generate", parse_eval_generate}};
  return table;
}

bool is_group(const std::string& word) {
  return std::any_of(commands().begin(), commands().end(),
                     [&](const CommandHelp& command) { return command.words.starts_with(word + " "); });
}

[[noreturn]] void fail_command(const std::string& problem, const std::string& word,
                               const std::vector<std::string>& known, const std::string& program) {
  const Nearest nearest = nearest_word(word, known);
  throw Error(ErrorKind::kUsage,
              fmt::format("{}{}\nusage: {} COMMAND [options]\nsee: {} --help", problem,
                          nearest.close ? fmt::format("; did you mean {}?", nearest.name) : "", program, program));
}

}  // namespace

CommonArguments find_common_arguments(const std::vector<std::string>& words) {
  CommonArguments common;
  for (const std::string& word : words) {
    if (word == "--") break;
    common.json |= word == "--json";
    common.quiet |= word == "--quiet";
    common.verbose |= word == "--verbose";
    common.ascii |= word == "--ascii";
  }
  return common;
}

CommandLine parse_command_line(const std::string& program, const std::vector<std::string>& words) {
  const std::string base = program.substr(program.rfind('/') == std::string::npos ? 0 : program.rfind('/') + 1);
  if (base == "train_sft_tunix" || base == "train_sft_tunix.py") return parse_train(base, words);
  if (base == "eval_generate" || base == "eval_generate.py") return parse_eval_generate(base, words);
  const std::string name = "gemma-sft";

  // The command is the first word that is not an option; switches may stand before it.
  Words before;
  size_t at = 0;
  while (at < words.size() && words[at].starts_with("-")) before.push_back(words[at++]);
  const auto has = [&before](const char* word) {
    return std::find(before.begin(), before.end(), word) != before.end();
  };
  if (at == words.size()) {
    if (has("-h") || has("--help")) return {find_common_arguments(before), HelpArguments{overview()}};
    if (has("--version")) return {find_common_arguments(before), VersionArguments{}};
    static const std::vector<std::string> known = {"--help", "--version", "--json", "--quiet", "--verbose", "--ascii"};
    for (const std::string& word : before) {
      if (std::find(known.begin(), known.end(), word) == known.end()) {
        fail_command(fmt::format("unknown option {}", word), "", {}, name);
      }
    }
    fail_command("a command is required", "", {}, name);
  }

  std::string command = words[at++];
  Words rest(words.begin() + static_cast<std::ptrdiff_t>(at), words.end());
  if (command == "help") {
    if (rest.empty()) return {find_common_arguments(words), HelpArguments{overview()}};
    Words again = rest;
    again.push_back("--help");
    return parse_command_line(program, again);
  }
  if (is_group(command)) {
    const auto second =
        std::find_if(rest.begin(), rest.end(), [](const std::string& word) { return !word.starts_with("-"); });
    if (second == rest.end()) {
      if (std::any_of(rest.begin(), rest.end(), [](const auto& word) { return word == "-h" || word == "--help"; })) {
        return {find_common_arguments(words), HelpArguments{group_help(command)}};
      }
      fail_command(fmt::format("{}: a command is required", command), "", {}, name + " " + command);
    }
    std::vector<std::string> known;
    for (const CommandHelp& one : commands()) {
      if (one.words.starts_with(command + " ")) known.push_back(one.words.substr(command.size() + 1));
    }
    if (std::find(known.begin(), known.end(), *second) == known.end()) {
      fail_command(fmt::format("unknown command {}", in_quotes(command + " " + *second)), *second, known,
                   name + " " + command);
    }
    command += " " + *second;
    rest.erase(second);
  } else if (!parsers().contains(command)) {
    std::vector<std::string> known;
    for (const CommandHelp& one : commands()) {
      if (one.listed) known.push_back(one.words.substr(0, one.words.find(' ')));
    }
    fail_command(fmt::format("unknown command {}", in_quotes(command)), command, known, name);
  }
  rest.insert(rest.begin(), before.begin(), before.end());
  return parsers().at(command)(name, rest);
}

}  // namespace gemma_sft
