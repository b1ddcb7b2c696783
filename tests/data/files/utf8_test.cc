#include "data/files/utf8.h"

#include <gtest/gtest.h>

namespace gemma_sft {
namespace {

bool is_valid(const std::string& text) { return !find_utf8_problem(text).has_value(); }

// How many byte strings are UTF-8 follows from how many characters have one, two, three and four bytes:
// 128, 1,920, 61,440 (65,536 - 2,048 - 2,048 surrogates) and 1,048,576.
TEST(Utf8, AcceptsExactlyTheStringsOfTwoBytesThatAreUtf8) {
  int valid = 0;
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; ++b) valid += is_valid({static_cast<char>(a), static_cast<char>(b)});
  }
  EXPECT_EQ(valid, 128 * 128 + 1920);
}

TEST(Utf8, AcceptsExactlyTheCharactersOfThreeBytes) {
  int valid = 0;
  for (int a = 0xe0; a < 0xf0; ++a) {
    for (int b = 0; b < 256; ++b) {
      for (int c = 0; c < 256; ++c) {
        valid += is_valid({static_cast<char>(a), static_cast<char>(b), static_cast<char>(c)});
      }
    }
  }
  EXPECT_EQ(valid, 61'440);
}

TEST(Utf8, AcceptsExactlyTheCharactersOfFourBytes) {
  int valid = 0;
  for (int a = 0xf0; a < 0x100; ++a) {
    for (int b = 0; b < 256; ++b) {
      for (int c = 0; c < 256; ++c) {
        for (const int d : {0x7f, 0x80, 0xbf, 0xc0}) {  // the two in the middle can end a character
          valid += is_valid({static_cast<char>(a), static_cast<char>(b), static_cast<char>(c), static_cast<char>(d)});
        }
      }
    }
  }
  EXPECT_EQ(valid, 1'048'576 / 64 * 2);
}

TEST(Utf8, NamesTheByteAndTheReason) {
  const struct {
    std::string text;
    size_t byte;
    std::string found;
  } cases[] = {
      {"abc\xff", 3, "the byte 0xff, which no UTF-8 text has"},
      {"12345678abcdefgh\x80", 16, "a continuation byte with no start (0x80)"},
      {"\xc3\xa4\xc0\xaf", 2, "an overlong encoding (0xc0 0xaf)"},
      {"\xe0\x80\xaf", 0, "an overlong encoding (0xe0 0x80 0xaf)"},
      {"\xf0\x80\x80\xaf", 0, "an overlong encoding (0xf0 0x80 0x80 0xaf)"},
      {"a\xed\xa0\x80", 1, "an encoded surrogate (0xed 0xa0 0x80)"},
      {"\xf4\x90\x80\x80", 0, "a code point above U+10FFFF (0xf4 0x90 0x80 0x80)"},
      {"\xf5\x80\x80\x80", 0, "the byte 0xf5, which no UTF-8 text has"},
      {"ab\xe4\xb8", 2, "a character cut short by the end (0xe4 0xb8)"},
      {"\xe4\xb8 ", 0, "an unfinished character (0xe4 0xb8 0x20)"},
      {"\xc3(", 0, "an unfinished character (0xc3 0x28)"},
  };
  for (const auto& c : cases) {
    const auto problem = find_utf8_problem(c.text);
    ASSERT_TRUE(problem) << c.found;
    EXPECT_EQ(problem->byte, c.byte) << c.found;
    EXPECT_EQ(problem->found, c.found);
  }
}

TEST(Utf8, AppendsTheEncodingsOfTheStandardsExamples) {
  std::string text;
  for (const char32_t c : {U'\u0024', U'\u00a3', U'\u20ac', U'\U00010348'}) append_utf8(text, c);
  EXPECT_EQ(text, "\x24\xc2\xa3\xe2\x82\xac\xf0\x90\x8d\x88");
}

TEST(QuotedExcerpt, IsShortAndSafeOnATerminal) {
  EXPECT_EQ(quoted_excerpt("plain \xc3\xa4"), "\"plain \xc3\xa4\"");
  EXPECT_EQ(quoted_excerpt("a\"b\\c\n\r\t\x1b[31m\x7f"), R"("a\"b\\c\n\r\t\u001b[31m\u007f")");
  EXPECT_EQ(quoted_excerpt("\xe2\x80\xae\xef\xbb\xbf\xc2\x85\xf3\xa0\x80\x81"), R"("\u202e\ufeff\u0085\U000e0001")");
  EXPECT_EQ(quoted_excerpt(std::string("\xff\0", 2)), R"("\xff\u0000")");
  EXPECT_EQ(quoted_excerpt("abcdef", 4), "\"abcd\"...");
  EXPECT_EQ(quoted_excerpt("abcdef", 6), "\"abcdef\"");
  EXPECT_EQ(quoted_excerpt("abc\xe2\x82\xac", 5), "\"abc\"...") << "a character is never cut in two";
}

}  // namespace
}  // namespace gemma_sft
