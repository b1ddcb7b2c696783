// One command's words -> its options, and the options that several commands share. CLI11 with what it lacks: the
// nearest known name, one kind of error, "--name=" for an empty value, and a missing value that is noticed instead of
// the next option being taken for it. CLI11 itself stays in the .cc.
//
// Declare, parse, then ask. What cannot be understood is Error(kUsage) with the command's usage line.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "configs/choice_names.h"
#include "trainer/cli/command_line.h"

namespace gemma_sft {

class CommandParser {
 public:
  // `program` is what the user typed: "gemma-sft", or a link's name. `words` are the command's: "train", "config show".
  CommandParser(const std::string& program, const std::string& words);
  ~CommandParser();

  void flag(const std::string& name, bool& target, const std::string& help);
  // An option with one value, taken as it is.
  void text(const std::string& name, const std::string& type, const std::string& help);
  void required_text(const std::string& name, const std::string& type, const std::string& help);
  // May be given again and again, with one value each time.
  void texts(const std::string& name, const std::string& type, const std::string& help);
  // One occurrence may have several values: --corpus a.txt b.txt
  void required_list(const std::string& name, const std::string& type, const std::string& help);
  void required_positional(const std::string& name, const std::string& help);

  // False: help was asked for.
  bool parse(std::vector<std::string> words);

  std::optional<std::string> find(const std::string& name) const;
  std::string get(const std::string& name) const;
  const std::vector<std::string>& all(const std::string& name) const;
  // Names of the options with a value in the order of the command line, one entry per occurrence, with their values.
  std::vector<std::pair<std::string, std::string>> in_order() const;
  CommonArguments common() const;

  template <typename Number>
  std::optional<Number> find_number(const std::string& name, Number minimum, Number maximum) const {
    const std::optional<std::string> word = find(name);
    if (!word) return std::nullopt;
    Number number{};
    const char* end = word->data() + word->size();
    const auto [rest, error] = std::from_chars(word->data(), end, number);
    if (error != std::errc() || rest != end || !(number >= minimum && number <= maximum)) {
      fail_number(name, *word, std::is_integral_v<Number>, text_of(minimum),
                  maximum == std::numeric_limits<Number>::max() ? "" : text_of(maximum));
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

  [[noreturn]] void fail(const std::string& problem) const;
  [[noreturn]] void fail_choice(const std::string& name, const std::string& word,
                                const std::vector<std::string>& known) const;

  std::string help_text() const;

 private:
  struct State;

  template <typename Number>
  static std::string text_of(Number number) {
    char buffer[32];
    return {buffer, std::to_chars(buffer, buffer + sizeof buffer, number).ptr};
  }
  [[noreturn]] void fail_number(const std::string& name, const std::string& word, bool whole,
                                const std::string& minimum, const std::string& maximum) const;
  // Each value as a word of its own: "--name=value" is taken apart.
  std::vector<std::string> with_values_apart(const std::vector<std::string>& words) const;

  std::unique_ptr<State> state_;
};

// Declares, parses, and turns into arguments; the help text where that is asked for.
template <typename Declare, typename Fill>
CommandLine run_parser(const std::string& program, const std::string& command, const std::vector<std::string>& rest,
                       Declare declare, Fill fill) {
  CommandParser parser(program, command);
  declare(parser);
  if (!parser.parse(rest)) return {parser.common(), HelpArguments{parser.help_text()}};
  return {parser.common(), fill(parser)};
}

inline constexpr int64_t kAnyCount = std::numeric_limits<int64_t>::max();

std::string in_quotes(const std::string& text);

// --set KEY=VALUE and the options that stand for a key: --data, and where the command has them --output-dir and
// --max-samples.
void add_value_options(CommandParser& parser);
// In the order of the command line, which later ones win.
std::vector<Assignment> assignments_of(const CommandParser& parser);

// --device auto|cpu|cuda|cuda:N
void add_device_option(CommandParser& parser);
std::string device_of(const CommandParser& parser);

// --max-new-tokens, --temperature, --top-k, --top-p, --seed, --precision
void add_sampling_options(CommandParser& parser);
SamplingArguments sampling_of(const CommandParser& parser);

// Exactly one of two options is given.
void require_one_of(const CommandParser& parser, const std::string& first, const std::string& second);

}  // namespace gemma_sft
