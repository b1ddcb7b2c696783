#include "trainer/cli/output.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace gemma_sft
