#include "configs/yaml_tree.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

// "line:column: message" of what is wrong with the text, "" when nothing is.
std::string problem(const std::string& text) {
  try {
    parse_yaml(text);
  } catch (const YamlProblem& found) {
    return std::to_string(found.place.line) + ":" + std::to_string(found.place.column) + ": " + found.what();
  }
  return "";
}

std::string repeated(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

TEST(YamlTree, RemembersWhereEverythingStands) {
  const YamlNode root = parse_yaml("a: 1\nb:\n  c: 'x y'\n  d: [p, \"q\"]\ne:\nf: ~\n");
  ASSERT_EQ(root.kind, YamlNode::Kind::kMap);
  ASSERT_EQ(root.entries.size(), 4u);
  EXPECT_EQ(root.entries[0].key, "a");
  EXPECT_EQ(root.entries[0].value.text, "1");
  EXPECT_FALSE(root.entries[0].value.quoted);
  EXPECT_EQ(root.entries[0].value.place.line, 1);
  EXPECT_EQ(root.entries[0].value.place.column, 4);
  const YamlNode& b = root.entries[1].value;
  ASSERT_EQ(b.entries.size(), 2u);
  EXPECT_EQ(b.entries[0].place.line, 3);
  EXPECT_EQ(b.entries[0].place.column, 3);
  EXPECT_EQ(b.entries[0].value.text, "x y");
  EXPECT_TRUE(b.entries[0].value.quoted);
  EXPECT_EQ(b.entries[0].value.place.column, 6);
  ASSERT_EQ(b.entries[1].value.items.size(), 2u);
  EXPECT_EQ(b.entries[1].value.items[1].text, "q");
  EXPECT_EQ(root.entries[2].value.kind, YamlNode::Kind::kNothing);
  EXPECT_FALSE(root.entries[2].value.says_null);
  EXPECT_EQ(root.entries[3].value.kind, YamlNode::Kind::kNothing);
  EXPECT_TRUE(root.entries[3].value.says_null);
}

TEST(YamlTree, LineEndsOfOtherSystemsAndAByteOrderMarkChangeNothing) {
  for (const char* text : {"a:\n  b: 1\n", "a:\r\n  b: 1\r\n", "a:\r  b: 1\r",
                           "\xef\xbb\xbf"
                           "a:\n  b: 1\n",
                           "--- \na:\n  b: 1\n...\n"}) {
    const YamlNode root = parse_yaml(text);
    ASSERT_EQ(root.entries.size(), 1u) << text;
    EXPECT_EQ(root.entries[0].value.entries[0].value.text, "1") << text;
    EXPECT_EQ(root.entries[0].value.entries[0].place.column, 3) << text;
  }
}

TEST(YamlTree, ColumnsCountBytes) {
  const YamlNode root = parse_yaml("{\"é\": 1}");
  EXPECT_EQ(root.entries[0].value.place.column, 8);
}

TEST(YamlTree, EmptyTextsAreNothing) {
  for (const char* text : {"", "\n\n", "# only a comment\n", "\r", "---\n", "\xef\xbb\xbf"}) {
    EXPECT_EQ(parse_yaml(text).kind, YamlNode::Kind::kNothing) << text;
  }
}

TEST(YamlTree, WhatIsNotPlainYamlIsRefusedByName) {
  EXPECT_EQ(problem("a: 1\n---\nb: 2\n"), "2:1: a second YAML document; a configuration is one document");
  EXPECT_EQ(problem("a: &x {b: 1}\nc:\n  <<: *x\n"), "3:3: merge keys (<<) are not supported; write the keys out");
  EXPECT_EQ(problem("a: !!int 3\n"), "1:4: YAML tags (!...) are not supported; remove the tag");
  EXPECT_EQ(problem("a: !secret x\n"), "1:4: YAML tags (!...) are not supported; remove the tag");
  EXPECT_EQ(problem("? [a, b]\n: 1\n"),
            "1:3: a key must be a word, not a list or a section; is a bracket never closed?");
  EXPECT_EQ(problem("~: 1\n"), "1:1: a key must be a word, not empty");
  EXPECT_EQ(problem("a:\n\tb: 1\n"), "2:1: a tab in the indentation; YAML wants spaces");
  EXPECT_EQ(problem("a:\n  \tb: 1\n"), "2:3: a tab in the indentation; YAML wants spaces");
  EXPECT_EQ(problem("a: \"open\nb: 1\n"), "1:4: these quotes are never closed");
  EXPECT_EQ(problem("a: 'it''s\n"), "1:4: these quotes are never closed");
}

TEST(YamlTree, TabsElsewhereAreFine) { EXPECT_EQ(problem("a: 1\t# comment\n\t\n\t# comment\nb: \"x\ty\"\n"), ""); }

TEST(YamlTree, SyntaxErrorsSayWhere) {
  const std::string advice = "; check the indentation, colons and quotes here and on the line before";
  EXPECT_EQ(problem("a: 1\n b: 2\n"), "2:3: not valid YAML: illegal map value" + advice);
  EXPECT_EQ(problem("a: [1, 2\n"), "2:1: not valid YAML: end of sequence flow not found" + advice);
  EXPECT_EQ(problem("a: *b\n"), "1:4: not valid YAML: the referenced anchor is not defined" + advice);
  // The parser's words hold what it found: a byte of a letter, or its sign for the end of the file.
  EXPECT_EQ(problem("a: \"\\\u00e9\"\n"), "1:7: not valid YAML: unknown escape character: \\xc3" + advice);
  EXPECT_EQ(problem("a: \"b\\"), "1:8: the file ends within quotes");
}

TEST(YamlTree, BytesThatNoTextHoldsAreRefused) {
  EXPECT_EQ(problem(std::string("a: 1\nb: \0", 9)), "2:4: control character U+0000; is this a text file?");
  EXPECT_EQ(problem("a: 1\n\x04 b: 2\n"), "2:1: control character U+0004; is this a text file?");
  EXPECT_EQ(problem("a: \xe9t\xe9\n"), "1:4: byte 0xe9 is not UTF-8; save the file as UTF-8");
  EXPECT_EQ(problem("a: \xc0\x80\n"), "1:4: byte 0xc0 is not UTF-8; save the file as UTF-8");
  EXPECT_EQ(problem("a: \xed\xa0\x80\n"), "1:4: byte 0xed is not UTF-8; save the file as UTF-8");
  EXPECT_EQ(problem("a: \xf4\x90\x80\x80\n"), "1:4: byte 0xf4 is not UTF-8; save the file as UTF-8");
  EXPECT_EQ(problem(std::string("\xff\xfe"
                                "a\0",
                                4)),
            "1:1: the file is UTF-16; save it as UTF-8");
}

TEST(YamlTree, AliasesStandForWhatTheyName) {
  const YamlNode root = parse_yaml("a: &x [1, 2]\nb: *x\n");
  ASSERT_EQ(root.entries[1].value.items.size(), 2u);
  EXPECT_EQ(root.entries[1].value.items[1].text, "2");
  EXPECT_EQ(root.entries[1].value.place.line, 2);
}

TEST(YamlTree, BombsAreRefusedQuickly) {
  std::string laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n";
  for (char c = 'b'; c < 'k'; ++c) {
    const std::string before(1, static_cast<char>(c - 1));
    laughs += std::string(1, c) + ": &" + c + " [" + repeated("*" + before + ",", 9) + "]\n";
  }
  std::string chain = "a0: &a0 x\n";
  for (int i = 1; i < 6000; ++i) {
    chain += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" + std::to_string(i - 1) + "]\n";
  }
  const std::pair<std::string, std::string> bombs[] = {
      {laughs, "5:8: more than 10000 values"},
      {chain, "65:12: nested deeper than 64 levels"},
      {"a: &a [*a]\n", "1:8: this alias stands inside what it stands for"},
      {"a: &x 1\nb: [" + repeated("*x,", 200) + "]\n", "2:305: more than 100 aliases"},
      {repeated("- ", 100000), "1:129: nested deeper than 64 levels"},
      {"a: " + repeated("[", 64) + repeated("]", 64), "1:67: nested deeper than 64 levels"},
      {"a: [" + repeated("1,", 20000) + "]", "1:20003: more than 10000 values"},
      {"a: " + std::string(YamlLimits::kBytes, 'x'), "1:1: the file is larger than 256 KiB, which no configuration is"},
  };
  for (const auto& [text, expected] : bombs) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(problem(text), expected) << text.substr(0, 60);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
  }
}

TEST(YamlTree, LongRunsOfOneCharacterEndQuickly) {
  for (const std::string text : {"[", "{", "? ", ": ",  "- ", "!",   "&",  "*", "%", "'", "\"",  "\"\\",
                                 "#", ",", "[,", "a: ", "a ", "|\n", "\n", " ", "`", "@", "{a: "}) {
    const std::string run = repeated(text, static_cast<int>(YamlLimits::kBytes / text.size()));
    const auto begin = std::chrono::steady_clock::now();
    problem(run);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1)) << text;
  }
}

TEST(YamlTree, SixtyThreeLevelsAreAccepted) { EXPECT_EQ(problem("a: " + repeated("[", 63) + repeated("]", 63)), ""); }

TEST(YamlTree, DamagedFilesGiveAProblemOrATree) {
  const std::string whole = file_text(std::string(GEMMA_SFT_SOURCE_DIR) + "/configs/sft_production.yaml");
  ASSERT_FALSE(whole.empty());
  std::mt19937_64 random(20240601);
  const std::string odd = "{}[]:-?,&*!|>'\"%@`#\n\t \r~<=\\\xc3";
  int refused = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string text = whole;
    for (int edit = 0; edit < 4; ++edit) {
      const size_t at = random() % text.size();
      const char c = odd[random() % odd.size()];
      switch (random() % 4) {
        case 0: text.insert(at, 1, c); break;
        case 1: text[at] = c; break;
        case 2: text.erase(at, 1 + random() % 8); break;
        default: text.insert(at, text.substr(random() % text.size(), random() % 40));
      }
      if (text.empty()) text = "a";
    }
    refused += problem(text).empty() ? 0 : 1;
  }
  EXPECT_GT(refused, 100);
  EXPECT_LT(refused, 4000);
}

}  // namespace
}  // namespace gemma_sft
