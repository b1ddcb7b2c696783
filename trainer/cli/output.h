// The two streams a command writes to. stdout holds what was asked for: status lines, data, one JSON object; a line
// that cannot be written there is an error. stderr is for people; what cannot be written there is lost.
//
// Text is UTF-8; where the terminal is to have ASCII only, known symbols are replaced ("[ok]") and other characters
// written as \uXXXX, which inside JSON means the same character.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace gemma_sft {

// Whoever read stdout went away: nothing is wrong with us, and nobody is left to tell.
struct ReaderGone {};

class Output {
 public:
  struct Options {
    bool json = false;
    bool quiet = false;
    bool verbose = false;
    bool ascii = false;
  };
  explicit Output(const Options& options) : options_(options) {}

  bool json() const { return options_.json; }
  bool quiet() const { return options_.quiet; }
  bool verbose() const { return options_.verbose; }
  bool ascii() const { return options_.ascii; }

  // stdout. Throw Error(kIo) when it cannot be written, ReaderGone when it is a pipe without a reader.
  void print(std::string_view text) const;         // as it is; on a terminal with control characters escaped
  void print_line(const std::string& line) const;  // for people, control characters escaped; nothing with --json
  void status(const std::string& line) const;      // "✅ " + line; nothing with --json

  // stderr. Never throw. Messages have their control characters, but the ends of their lines, escaped.
  void say(const std::string& message) const;
  void warn(const std::string& message) const;
  void note(const std::string& message) const;           // not with --quiet
  void explain(const std::string& message) const;        // only with --verbose
  void complain(const std::string& message) const;       // "error: ..."
  void write_error_stream(std::string_view text) const;  // as it is

 private:
  Options options_;
};

// Does the locale name a codeset other than UTF-8? LC_ALL, LC_CTYPE, LANG, the first that is set; C and POSIX do not.
bool locale_needs_ascii(const std::function<std::optional<std::string>(const std::string&)>& environment);

std::string to_ascii(std::string_view text);

// What stderr is: decides how progress is shown.
struct Terminal {
  bool redraws = false;  // a terminal, and TERM is not dumb
  bool color = false;    // the same, and NO_COLOR is not set
};
Terminal describe_error_terminal();
int error_terminal_columns();  // now; 80 where it cannot be known

}  // namespace gemma_sft
