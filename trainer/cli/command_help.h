// What each command is, in words: the texts of --help.
#pragma once

#include <string>
#include <vector>

namespace gemma_sft {

struct CommandHelp {
  std::string words;  // "train", "config show"
  std::string summary;
  std::vector<std::string> examples;  // without the program's name
  std::string usage;                  // behind the words
  std::string notes = {};             // after the options
  bool listed = true;                 // in the overview
};

// In the order of the overview.
const std::vector<CommandHelp>& command_helps();
const CommandHelp& help_of(const std::string& words);  // Error(kInternal) for a command that is not there

std::string overview();                            // gemma-sft --help
std::string group_help(const std::string& group);  // gemma-sft config --help

}  // namespace gemma_sft
