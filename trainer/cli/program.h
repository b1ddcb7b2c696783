// What both executables share around a command: the arguments, one catch-all, and the exit code.
#pragma once

#include <functional>
#include <string>

#include "trainer/cli/command_line.h"
#include "trainer/cli/output.h"

namespace gemma_sft {

// Parses argv, answers --help and --version, runs `command` for the rest and gives its exit code. Whatever is thrown
// ends here: Error with the exit code of its kind, no memory with 11, a reader of stdout that went away with 141 (128 +
// SIGPIPE), anything else with 70. With --json an error is one JSON object on stdout, too: {"error": {"kind",
// "message", "exit_code"}}.
int run_program(int argc, char** argv, const std::function<int(const CommandLine&, const Output&)>& command);

// What run_program does with a failure: says it on stderr, with --json on stdout too, and gives `code` back.
int report_failure(const Output& output, int code, const std::string& message);

const char* version();

}  // namespace gemma_sft
