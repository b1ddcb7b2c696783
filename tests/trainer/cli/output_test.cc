#include "trainer/cli/output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <map>

namespace gemma_sft {
namespace {

bool needs_ascii(const std::map<std::string, std::string>& environment) {
  return locale_needs_ascii([&](const std::string& name) -> std::optional<std::string> {
    const auto found = environment.find(name);
    if (found == environment.end()) return std::nullopt;
    return found->second;
  });
}

TEST(Locale, OnlyANamedCodesetOtherThanUtf8AsksForAscii) {
  EXPECT_FALSE(needs_ascii({}));
  EXPECT_FALSE(needs_ascii({{"LANG", "C"}}));
  EXPECT_FALSE(needs_ascii({{"LC_ALL", "POSIX"}}));
  EXPECT_FALSE(needs_ascii({{"LANG", "de_DE"}}));
  EXPECT_FALSE(needs_ascii({{"LANG", "C.UTF-8"}}));
  EXPECT_FALSE(needs_ascii({{"LANG", "en_US.utf8@euro"}}));
  EXPECT_TRUE(needs_ascii({{"LANG", "de_DE.ISO-8859-1"}}));
  EXPECT_TRUE(needs_ascii({{"LANG", "ja_JP.eucJP"}}));
  EXPECT_TRUE(needs_ascii({{"LANG", "de_DE.ISO-8859-15@euro"}}));
}

TEST(Locale, LcAllComesBeforeLcCtypeBeforeLangAndEmptyIsUnset) {
  EXPECT_FALSE(needs_ascii({{"LC_ALL", "C.UTF-8"}, {"LANG", "de_DE.ISO-8859-1"}}));
  EXPECT_TRUE(needs_ascii({{"LC_ALL", ""}, {"LC_CTYPE", "de_DE.ISO-8859-1"}, {"LANG", "C.UTF-8"}}));
}

TEST(Ascii, KnownSymbolsAreReplacedAndTheRestIsWrittenAsJsonWould) {
  EXPECT_EQ(to_ascii("✅ Config loaded: a.yaml"), "[ok] Config loaded: a.yaml");
  EXPECT_EQ(to_ascii("⏳ → …"), "[wait] -> ...");
  EXPECT_EQ(to_ascii("⚠️ x"), "[warning] x");
  EXPECT_EQ(to_ascii("ä日"), "\\u00e4\\u65e5");
  EXPECT_EQ(to_ascii("\xF0\x9F\x98\x80"), "\\ud83d\\ude00");  // U+1F600
  EXPECT_EQ(to_ascii("\xFF\xE4z"), "\\ufffd\\ufffdz");
  EXPECT_EQ(to_ascii("\xE2\x82"), "\\ufffd\\ufffd");  // cut short
  EXPECT_EQ(to_ascii("a\tb\n"), "a\tb\n");
}

std::string printed(const std::function<void(const Output&)>& print, const Output::Options& options = {}) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  print(Output(options));
  return testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr();
}

// What gets to a terminal that is stdout.
std::string shown_on_terminal(std::string_view text) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0) return "no terminal";
  const int screen = open(ptsname(terminal), O_RDWR | O_NOCTTY);
  termios settings{};
  tcgetattr(screen, &settings);
  cfmakeraw(&settings);
  tcsetattr(screen, TCSANOW, &settings);
  fflush(stdout);
  const int before = dup(STDOUT_FILENO);
  dup2(screen, STDOUT_FILENO);
  Output({}).print(text);
  dup2(before, STDOUT_FILENO);
  char buffer[256];
  const ssize_t count = read(terminal, buffer, sizeof(buffer));
  for (const int descriptor : {before, screen, terminal}) close(descriptor);
  return std::string(buffer, static_cast<size_t>(std::max<ssize_t>(count, 0)));
}

TEST(Output, MessagesSteerNoTerminal) {
  const std::string text =
      "a\x1b[2Jb\xc2\x9b"
      "c\x9b\nd ✅";
  const std::string harmless = "a\\u001b[2Jb\\u009bc\\x9b\nd ✅\n";
  EXPECT_EQ(printed([&](const Output& output) { output.complain(text); }), "error: " + harmless);
  EXPECT_EQ(printed([&](const Output& output) { output.warn(text); }), "warning: " + harmless);
  EXPECT_EQ(printed([&](const Output& output) { output.note(text); }), harmless);
  EXPECT_EQ(printed([&](const Output& output) { output.say(text); }), harmless);
  EXPECT_EQ(printed([&](const Output& output) { output.explain(text); }, {.verbose = true}), harmless);
  EXPECT_EQ(printed([&](const Output& output) { output.complain("\x9bä"); }, {.ascii = true}), "error: \\x9b\\u00e4\n");
}

TEST(Output, AStatusLineIsOneLine) {
  EXPECT_EQ(printed([](const Output& output) { output.status("a\n✅ b\x1b"); }), "✅ a\\u000a✅ b\\u001b\n");
  EXPECT_EQ(printed([](const Output& output) { output.print_line("a\nb\x9b"); }), "a\\u000ab\\x9b\n");
  EXPECT_EQ(printed([](const Output& output) { output.print_line("a"); }, {.json = true}), "");
}

TEST(Output, WhatWasAskedForIsAsItIsButOnATerminal) {
  const std::string answer = "a\x1b]0;title\a\tb\r\nc ✅\n";
  EXPECT_EQ(printed([&](const Output& output) { output.print(answer); }), answer);
  EXPECT_EQ(shown_on_terminal(answer), "a\\u001b]0;title\\u0007\tb\\u000d\nc ✅\n");
}

}  // namespace
}  // namespace gemma_sft
