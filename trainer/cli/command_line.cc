#include "trainer/cli/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "configs/error.h"
#include "configs/nearest_key.h"
#include "trainer/cli/command_help.h"
#include "trainer/cli/command_parser.h"
#include "trainer/cli/parse_commands.h"

namespace gemma_sft {
namespace {

using ParseFunction = CommandLine (*)(const std::string&, const Words&);

const std::map<std::string, ParseFunction>& parsers() {
  static const std::map<std::string, ParseFunction> table = {{"train", parse_train},
                                                             {"config schema", parse_config_schema},
                                                             {"config show", parse_config_show},
                                                             {"config explain", parse_config_explain},
                                                             {"tokenize", parse_tokenize},
                                                             {"explain", parse_explain},
                                                             {"verify", parse_verify},
                                                             {"selftest", parse_selftest},
                                                             {"tokenizer train", parse_tokenizer_train},
                                                             {"generate", parse_generate},
                                                             {"eval", parse_eval},
                                                             {"export", parse_export},
                                                             {"model init", parse_model_init},
                                                             {"eval_generate", parse_eval_generate},
                                                             {"traces export", parse_traces_export},
                                                             {"jobs list", parse_jobs_list},
                                                             {"jobs show", parse_jobs_show},
                                                             {"jobs watch", parse_jobs_watch},
                                                             {"jobs cancel", parse_jobs_cancel},
                                                             {"jobs download", parse_jobs_download},
                                                             {"jobs estimate", parse_jobs_estimate},
                                                             {"preflight", parse_preflight},
                                                             {"auth test", parse_auth_test},
                                                             {"quota", parse_quota}};
  return table;
}

bool is_group(const std::string& word) {
  return std::any_of(command_helps().begin(), command_helps().end(),
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
    for (const CommandHelp& one : command_helps()) {
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
    for (const CommandHelp& one : command_helps()) {
      if (one.listed) known.push_back(one.words.substr(0, one.words.find(' ')));
    }
    fail_command(fmt::format("unknown command {}", in_quotes(command)), command, known, name);
  }
  rest.insert(rest.begin(), before.begin(), before.end());
  return parsers().at(command)(name, rest);
}

}  // namespace gemma_sft
