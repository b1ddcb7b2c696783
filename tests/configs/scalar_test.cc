#include "configs/scalar.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>

namespace gemma_sft {
namespace {

TEST(Scalar, WholeNumbersAreDecimalDigits) {
  EXPECT_EQ(parse_whole_number("0"), 0);
  EXPECT_EQ(parse_whole_number("42"), 42);
  EXPECT_EQ(parse_whole_number("+7"), 7);
  EXPECT_EQ(parse_whole_number("-7"), -7);
  EXPECT_EQ(parse_whole_number("9223372036854775807"), std::numeric_limits<int64_t>::max());
  for (const char* text : {"", "+", "-", "+-1", "010", "00", "-01", "1e3", "4.0", "0x10", "1_000", "1,000", " 1", "1 ",
                           "four", "9223372036854775808", "1a"}) {
    EXPECT_FALSE(parse_whole_number(text)) << text;
  }
}

TEST(Scalar, NumbersAreFiniteDecimals) {
  EXPECT_EQ(parse_number("2e-5"), 2e-5);
  EXPECT_EQ(parse_number("2E-05"), 2e-5);
  EXPECT_EQ(parse_number("1e+3"), 1000.0);
  EXPECT_EQ(parse_number(".5"), 0.5);
  EXPECT_EQ(parse_number("+3"), 3.0);
  EXPECT_EQ(parse_number("-0.25"), -0.25);
  EXPECT_EQ(parse_number("3."), 3.0);
  for (const char* text : {"",    ".",    "e5",    "1e",     "1e+",   "010", "00.5", "0x1p3", ".inf", "inf",
                           "nan", ".NaN", "1e999", "1e-999", "1_0.5", "0,5", "1.5f", "--1",   "+-1",  "2 e-5"}) {
    EXPECT_FALSE(parse_number(text)) << text;
  }
}

TEST(Scalar, OnlyTrueAndFalseAreSwitches) {
  EXPECT_EQ(parse_switch("true"), true);
  EXPECT_EQ(parse_switch("false"), false);
  for (const char* text : {"yes", "on", "True", "TRUE", "1", "0", "no", "off", ""}) {
    EXPECT_FALSE(parse_switch(text)) << text;
  }
}

TEST(Scalar, RemediesSayWhatToWrite) {
  EXPECT_EQ(whole_number_remedy("1e3"), "write 1000");
  EXPECT_EQ(whole_number_remedy("4.0"), "write 4");
  EXPECT_EQ(whole_number_remedy("1_000"), "write 1000");
  EXPECT_EQ(whole_number_remedy("1,000"), "write 1000");
  EXPECT_EQ(whole_number_remedy("010"), "a leading zero means octal to some readers, write 10");
  EXPECT_EQ(whole_number_remedy("-00"), "a leading zero means octal to some readers, write -0");
  EXPECT_EQ(whole_number_remedy("4.5"), "");
  EXPECT_EQ(whole_number_remedy("four"), "");
  EXPECT_EQ(number_remedy("0,5"), "write 0.5");
  EXPECT_EQ(number_remedy(".inf"), "only finite numbers are accepted");
  EXPECT_EQ(number_remedy("-NaN"), "only finite numbers are accepted");
  EXPECT_EQ(number_remedy("1e999"), "it does not fit into a double");
  EXPECT_EQ(number_remedy("fast"), "");
  EXPECT_EQ(switch_remedy("Yes"), "write true");
  EXPECT_EQ(switch_remedy("off"), "write false");
  EXPECT_EQ(switch_remedy("maybe"), "");
}

TEST(Scalar, PlainScalarsMeanWhatYamlSaysTheyMean) {
  for (const char* text : {"1", "-2.5", "010", "1e5", ".inf", "NaN"}) {
    EXPECT_EQ(plain_meaning(text), "number") << text;
  }
  for (const char* text : {"true", "False"}) EXPECT_EQ(plain_meaning(text), "switch") << text;
  for (const char* text : {"~", "null", "Null", ""}) EXPECT_EQ(plain_meaning(text), "nothing");
  for (const char* text : {"yes", "1_000", "gemma", "1a2b", "v1.0", "5.jsonl"}) {
    EXPECT_EQ(plain_meaning(text), "text") << text;
  }
}

TEST(Scalar, PrintedNumbersReadBackTheSame) {
  EXPECT_EQ(print_number(2e-5), "2e-05");
  EXPECT_EQ(print_number(0.1), "0.1");
  EXPECT_EQ(print_number(3), "3");
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    const double value = std::ldexp(static_cast<double>(random() >> 11), static_cast<int>(random() % 400) - 250);
    const std::string text = print_number(value);
    EXPECT_EQ(parse_number(text), value) << text;
    EXPECT_EQ(std::strtod(text.c_str(), nullptr), value) << text;
  }
}

TEST(Scalar, Utf8SequencesAreCountedAndBrokenOnesAreNot) {
  for (const auto& [text, length] : {std::pair{"a\xe9", 1u},
                                     {"\xc3\xa9", 2u},
                                     {"\xe2\x82\xac", 3u},
                                     {"\xf0\x9f\x98\x80", 4u},
                                     {"\x80", 0u},
                                     {"\xc3", 0u},
                                     {"\xc0\xaf", 0u},
                                     {"\xe0\x9f\xbf", 0u},
                                     {"\xed\xa0\x80", 0u},
                                     {"\xf4\x90\x80\x80", 0u},
                                     {"\xff", 0u}}) {
    EXPECT_EQ(utf8_length(text), length) << text;
  }
}

TEST(Scalar, QuotesEscapeWhatJsonAndYamlEscape) {
  EXPECT_EQ(in_quotes("a\"b\\c\n\t\x01\x7f é"), "\"a\\\"b\\\\c\\n\\t\\u0001\\u007f é\"");
}

TEST(Scalar, QuotesHoldOnlyWhatIsUtf8AndShown) {
  EXPECT_EQ(in_quotes("\xc2\x9b\xc2\xa0 \x9b\xff ✅"), "\"\\u009b\xc2\xa0 \\ufffd\\ufffd ✅\"");
}

TEST(Scalar, ControlsAreEscapedAndEveryOtherCharacterStays) {
  EXPECT_EQ(without_controls(std::string_view("\x1b[2J\0\x7f\r\t\n", 9)), "\\u001b[2J\\u0000\\u007f\\u000d\\u0009\n");
  EXPECT_EQ(without_controls("a\tb\n", "\n\t"), "a\tb\n");
  EXPECT_EQ(without_controls("a\nb", ""), "a\\u000ab");
  EXPECT_EQ(without_controls("\xc2\x80\xc2\x9b\xc2\x9f\xc2\xa0"), "\\u0080\\u009b\\u009f\xc2\xa0");
  EXPECT_EQ(without_controls("\x9b\xc2 \xe2\x82 \xff"), "\\x9b\\xc2 \\xe2\\x82 \\xff");
  for (const char* text : {"", "✅ Config loaded: ä/日.yaml", "👩‍🚀 \\ \""})
    EXPECT_EQ(without_controls(text), text);
}

}  // namespace
}  // namespace gemma_sft
