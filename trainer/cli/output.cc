#include "trainer/cli/output.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "configs/error.h"
#include "configs/scalar.h"

namespace gemma_sft {
namespace {

// 0, or the errno of the write that failed.
int write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(descriptor, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    text.remove_prefix(static_cast<size_t>(count));
  }
  return 0;
}

constexpr std::array<std::pair<std::string_view, std::string_view>, 16> kSymbols = {{{"✅", "[ok]"},
                                                                                     {"❌", "[error]"},
                                                                                     {"⚠️", "[warning]"},
                                                                                     {"⚠", "[warning]"},
                                                                                     {"🔗", "[link]"},
                                                                                     {"⏳", "[wait]"},
                                                                                     {"→", "->"},
                                                                                     {"…", "..."},
                                                                                     {"–", "-"},
                                                                                     {"—", "-"},
                                                                                     {"×", "x"},
                                                                                     {"·", "."},
                                                                                     {"━", "#"},
                                                                                     {"─", "."},
                                                                                     {"“", "\""},
                                                                                     {"”", "\""}}};

struct CodePoint {
  char32_t value = 0;
  size_t bytes = 0;  // 0: not UTF-8
};

CodePoint first_code_point(std::string_view text) {
  const auto byte = [&text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  const size_t bytes = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (bytes == 0 || bytes > text.size()) return {};
  char32_t value = bytes == 1 ? lead : lead & (0xFFu >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    value = value << 6 | (byte(i) & 0x3F);
  }
  return {value, bytes};
}

}  // namespace

std::string to_ascii(std::string_view text) {
  std::string ascii;
  while (!text.empty()) {
    if (static_cast<unsigned char>(text[0]) < 0x80) {
      ascii += text[0];
      text.remove_prefix(1);
      continue;
    }
    const auto symbol =
        std::find_if(kSymbols.begin(), kSymbols.end(), [&](const auto& pair) { return text.starts_with(pair.first); });
    if (symbol != kSymbols.end()) {
      ascii += symbol->second;
      text.remove_prefix(symbol->first.size());
      continue;
    }
    const CodePoint point = first_code_point(text);
    if (point.bytes == 0) {
      ascii += "\\ufffd";
      text.remove_prefix(1);
      continue;
    }
    if (point.value >= 0x10000) {
      const uint32_t rest = static_cast<uint32_t>(point.value) - 0x10000;
      ascii += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
    } else {
      ascii += fmt::format("\\u{:04x}", static_cast<uint32_t>(point.value));
    }
    text.remove_prefix(point.bytes);
  }
  return ascii;
}

void Output::print(std::string_view text) const {
  // What is asked for, such as a model's answer, may hold any character; those that steer a terminal never get to one.
  const bool is_shown = isatty(STDOUT_FILENO) == 1;
  const std::string harmless = is_shown ? without_controls(text, "\n\t") : std::string();
  if (is_shown) text = harmless;
  const std::string ascii = options_.ascii ? to_ascii(text) : std::string();
  const int error = write_all(STDOUT_FILENO, options_.ascii ? std::string_view(ascii) : text);
  if (error == EPIPE) throw ReaderGone{};
  if (error != 0) throw Error(ErrorKind::kIo, fmt::format("stdout: cannot write: {}", std::strerror(error)));
}

void Output::status(const std::string& line) const { print_line("✅ " + line); }

void Output::print_line(const std::string& line) const {
  if (!options_.json) print(without_controls(line, "") + "\n");
}

void Output::write_error_stream(std::string_view text) const {
  write_all(STDERR_FILENO, options_.ascii ? to_ascii(text) : std::string(text));
}

void Output::say(const std::string& message) const { write_error_stream(without_controls(message) + "\n"); }

void Output::warn(const std::string& message) const { say("warning: " + message); }

void Output::note(const std::string& message) const {
  if (!options_.quiet) say(message);
}

void Output::explain(const std::string& message) const {
  if (options_.verbose) say(message);
}

void Output::complain(const std::string& message) const { say("error: " + message); }

bool locale_needs_ascii(const std::function<std::optional<std::string>(const std::string&)>& environment) {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::optional<std::string> locale = environment(name);
    if (!locale || locale->empty()) continue;
    const size_t dot = locale->find('.');
    if (dot == std::string::npos) return false;  // C, POSIX, or a language alone
    std::string codeset;
    for (const char c : locale->substr(dot + 1, locale->find('@') - dot - 1)) {
      if (c != '-' && c != '_') codeset += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    return codeset != "utf8";
  }
  return false;
}

Terminal describe_error_terminal() {
  const auto is_set = [](const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0';
  };
  const char* term = std::getenv("TERM");
  Terminal terminal;
  terminal.redraws = isatty(STDERR_FILENO) == 1 && term != nullptr && std::strcmp(term, "dumb") != 0 && *term != '\0';
  terminal.color = terminal.redraws && !is_set("NO_COLOR");
  return terminal;
}

int error_terminal_columns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

}  // namespace gemma_sft
