#include "trainer/cli/program.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <new>
#include <nlohmann/json.hpp>
#include <system_error>

#include "configs/error.h"
#include "configs/secrets.h"
#include "trainer/run/utf8_json.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kNoMemory = "out of memory; give the machine more, or ask for less at once";

const char* kind_name(int code) {
  switch (code) {
    case 2: return "usage";
    case 3: return "data";
    case 4: return "authentication";
    case 5: return "quota";
    case 6: return "job_failed";
    case 7: return "job_cancelled";
    case 8: return "timeout";
    case 9: return "io";
    case 10: return "api";
    case 11: return "out_of_memory";
    case 12: return "model";
    case 13: return "checkpoint";
    case 14: return "non_finite";
    default: return "internal";
  }
}

// A closed standard stream would be the number of the next file that is opened, and status lines would land in it.
// Writing to a stdout that was closed stays an error.
void occupy_standard_streams() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(descriptor, F_GETFD) >= 0) continue;
    open("/dev/null", descriptor == STDERR_FILENO ? O_WRONLY : O_RDONLY);
  }
}

Output make_output(const CommonArguments& common) {
  const auto environment = [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
  };
  return Output({.json = common.json,
                 .quiet = common.quiet,
                 .verbose = common.verbose,
                 .ascii = common.ascii || locale_needs_ascii(environment)});
}

int answer_version(const Output& output) {
  if (output.json()) {
    const Json json = {{"name", "gemma-sft"}, {"version", version()}, {"compiler", __VERSION__}};
    output.print(json.dump() + "\n");
  } else {
    output.print(std::string("gemma-sft ") + version() + "\n");
  }
  return 0;
}

}  // namespace

int report_failure(const Output& output, int code, const std::string& text) {
  const std::string message = without_secrets(text);
  output.complain(message);
  if (output.json()) {
    const Json json = {{"error", {{"kind", kind_name(code)}, {"message", message}, {"exit_code", code}}}};
    try {
      output.print(utf8_json(json) + "\n");
    } catch (...) {
      // stderr has told it; the exit code stays that of the first failure.
    }
  }
  return code;
}

const char* version() { return GEMMA_SFT_VERSION; }

int run_program(int argc, char** argv, const std::function<int(const CommandLine&, const Output&)>& command) {
  occupy_standard_streams();
  signal(SIGPIPE, SIG_IGN);  // a write says EPIPE instead
  signal(SIGXFSZ, SIG_IGN);  // and EFBIG
  const std::string program = argc > 0 ? argv[0] : "gemma-sft";
  const std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
  const Output early = make_output(find_common_arguments(words));
  try {
    const CommandLine line = parse_command_line(program, words);
    const Output output = make_output(line.common);
    try {
      if (const auto* help = std::get_if<HelpArguments>(&line.arguments)) {
        output.print(help->text);
        return 0;
      }
      if (std::holds_alternative<VersionArguments>(line.arguments)) return answer_version(output);
      return command(line, output);
    } catch (const Error& error) {
      return report_failure(output, exit_code(error.kind()), error.what());
    }
  } catch (const ReaderGone&) {
    return 128 + SIGPIPE;
  } catch (const Error& error) {
    return report_failure(early, exit_code(error.kind()), error.what());
  } catch (const std::bad_alloc&) {
    return report_failure(early, exit_code(ErrorKind::kOutOfMemory), kNoMemory);
  } catch (const std::filesystem::filesystem_error& error) {
    if (error.code() == std::errc::not_enough_memory) {
      return report_failure(early, exit_code(ErrorKind::kOutOfMemory), kNoMemory);
    }
    return report_failure(early, exit_code(ErrorKind::kIo),
                          error.path1().string() + ": cannot be looked at: " + error.code().message());
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::resource_unavailable_try_again) {  // no room for a thread's stack
      return report_failure(early, exit_code(ErrorKind::kOutOfMemory), kNoMemory);
    }
    return report_failure(early, exit_code(ErrorKind::kInternal), std::string("internal error: ") + error.what());
  } catch (const std::exception& error) {
    return report_failure(early, exit_code(ErrorKind::kInternal), std::string("internal error: ") + error.what());
  } catch (...) {
    return report_failure(early, exit_code(ErrorKind::kInternal), "internal error: an exception of an unknown type");
  }
}

}  // namespace gemma_sft
