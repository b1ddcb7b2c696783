#include "data/files/json_text.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <vector>

#include "configs/error.h"

namespace gemma_sft {
namespace {

std::string problem_text(const std::string& text, const JsonLimits& limits = {}) {
  const auto problem = find_json_problem(text, limits);
  if (!problem) return "none";
  return std::to_string(problem->byte) + ": expected " + problem->expected + ", found " + problem->found;
}

TEST(JsonText, NamesTheByteAndWhatWasExpectedThere) {
  const struct {
    std::string text;
    std::string problem;
  } cases[] = {
      {"", "0: expected a JSON value, found the end of the text"},
      {"  ", "2: expected a JSON value, found the end of the text"},
      {"{", "1: expected a member name in double quotes, found the end of the text"},
      {"{\"a\"", "4: expected ':' after the member name, found the end of the text"},
      {"{\"a\" 1}", "5: expected ':' after the member name, found \"1\""},
      {"{\"a\":", "5: expected a JSON value, found the end of the text"},
      {"{\"a\":1", "6: expected ',' or '}', found the end of the text"},
      {"{\"a\":1]", "6: expected ',' or '}', found \"]\""},
      {"{\"a\":1,}", "7: expected a member name in double quotes, found \"}\""},
      {"{'a':1}", "1: expected a member name in double quotes, found \"'\""},
      {"{a:1}", "1: expected a member name in double quotes, found \"a\""},
      {"{,}", "1: expected a member name in double quotes, found \",\""},
      {"[1 2]", "3: expected ',' or ']', found \"2\""},
      {"[1,]", "3: expected a JSON value, found \"]\""},
      {"[1}", "2: expected ',' or ']', found \"}\""},
      {"]", "0: expected a JSON value, found \"]\""},
      {"1 2", "2: expected nothing after the JSON value, found \"2\""},
      {"{} {}", "3: expected nothing after the JSON value, found \"{\""},
      {"[NaN]", "1: expected a JSON value, found \"NaN\""},
      {"[-Infinity]", "1: expected a JSON value, found \"-Infinity\""},
      {"[True]", "1: expected a JSON value, found \"True\""},
      {"[nul]", "1: expected a JSON value, found \"nul\""},
      {"[truely]", "5: expected ',' or ']', found \"ly\""},
      {"[01]", "1: expected a number without leading zeros, found \"01\""},
      {"[+1]", "1: expected a JSON value, found \"+\""},
      {"[-]", "1: expected a JSON value, found \"-\""},
      {"[1.]", "3: expected a digit, found \"]\""},
      {"[.5]", "1: expected a JSON value, found \".5\""},
      {"[1e]", "3: expected a digit, found \"]\""},
      {"[1e+]", "4: expected a digit, found \"]\""},
      {"[0x10]", "2: expected ',' or ']', found \"x10\""},
      {"\"abc", "4: expected the closing quote of the string that starts at byte 1, found the end of the text"},
      {"\"a\tb\"", "2: expected control characters in strings escaped, such as \\n or \\u0000, found \"\\t\""},
      {"\"a\nb\"", "2: expected control characters in strings escaped, such as \\n or \\u0000, found \"\\n\""},
      {"\"\\x41\"", "1: expected an escape sequence of JSON, found \"\\\\x\""},
      {"\"\\", "2: expected an escape sequence, found the end of the text"},
      {"\"\\u12\"", "1: expected four hexadecimal digits after \\u, found \"\\\\u12\\\"\""},
      {"\"\\u12G4\"", "1: expected four hexadecimal digits after \\u, found \"\\\\u12G\""},
      {"\"\\ud800\"", "1: expected surrogates in pairs, found the lone surrogate \\ud800"},
      {"\"\\udc00\"", "1: expected surrogates in pairs, found the lone surrogate \\udc00"},
      {"\"\\ud800\\u0041\"", "1: expected surrogates in pairs, found the lone surrogate \\ud800"},
      {"\"\\ud800x\"", "1: expected surrogates in pairs, found the lone surrogate \\ud800"},
      {"[1] // no", "4: expected nothing after the JSON value, found \"/\""},
      {"[\"\xff\"]", "2: expected valid UTF-8, found the byte 0xff, which no UTF-8 text has"},
      {"{\"a\":1,\"b\":2,\"a\":3}", "13: expected each member name once, found \"a\" again"},
      {"{\"a\":1,\"\\u0061\":3}", "7: expected each member name once, found \"a\" again"},
      {"{\"b\":1,\"b\":2,\"a\":3,\"a\":4}", "7: expected each member name once, found \"b\" again"},
      {"{\"\\u0061\":[{\"\\u0061\":1},{\"\\u0062\":1}],\"a\":3}",
       "38: expected each member name once, found \"a\" again"},
      {"[{\"k\":{\"x\":1,\"x\":2}}]", "13: expected each member name once, found \"x\" again"},
      {"\xef\xbb\xbf{}", "0: expected a JSON value, found \"\\ufeff\""},
      {"{\"\xc3\xa4\":\xc3\xa4}", "6: expected a JSON value, found \"\xc3\xa4\""},
  };
  for (const auto& c : cases) EXPECT_EQ(problem_text(c.text), c.problem) << c.text;
}

TEST(JsonText, AcceptsWhatTheStandardAllows) {
  for (const char* text : {"null",
                           "true",
                           " false ",
                           "0",
                           "-0",
                           "-1.5e-10",
                           "1E+5",
                           "\"\"",
                           "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\ud83d\\ude00\"",
                           "[]",
                           "[ ]",
                           "{}",
                           "{ }",
                           "[[[]]]",
                           "\r\n\t[1 , 2]\r\n",
                           "{\"a\":{\"a\":1},\"b\":{\"a\":1}}",
                           "{\"\":1}",
                           "[{\"a\":1},{\"a\":1}]",
                           "\"\x7f\"",
                           "12345678901234567890123456789012345678901234567890"}) {
    EXPECT_EQ(problem_text(text), "none") << text;
  }
}

TEST(JsonText, DepthAndNumberOfMembersAreLimited) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(problem_text(nested(256)), "none");
  EXPECT_EQ(problem_text(nested(257)), "256: expected at most 256 levels of nesting, found more");
  std::string objects;
  for (int i = 0; i < 300; ++i) objects += "{\"a\":";
  EXPECT_EQ(problem_text(objects), "1280: expected at most 256 levels of nesting, found more");
  EXPECT_EQ(problem_text("{\"a\":1,\"b\":{\"c\":1}}", {.max_members = 3}), "none");
  EXPECT_EQ(problem_text("{\"a\":1,\"b\":{\"c\":1}}", {.max_members = 2}),
            "12: expected at most 2 members, found more");
  EXPECT_EQ(problem_text("[{\"a\":1},{\"b\":1},{\"c\":1}]", {.max_members = 1}), "none")
      << "closed objects count no more";
}

TEST(JsonText, BombsAreRefusedOrPassedInWellUnderASecond) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_NE(problem_text(std::string(10'000'000, '[')), "none");
  std::string same_names = "{";
  for (int i = 0; i < 200'000; ++i) same_names += "\"a\":1,";
  EXPECT_EQ(problem_text(same_names + "\"a\":1}"), "7: expected each member name once, found \"a\" again");
  EXPECT_EQ(problem_text("[" + std::string(5'000'000, ' ') + "]"), "none");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));  // about 0.1 s without sanitizers
}

// What JsonValue sees, as the other library's value.
nlohmann::json copy_of(const JsonValue& value) {
  switch (value.kind()) {
    case JsonKind::kNull: return nullptr;
    case JsonKind::kBool: return value.boolean();
    case JsonKind::kString: return value.string();
    case JsonKind::kNumber:
      if (const auto integer = value.integer()) return *integer;
      return nlohmann::json::parse(value.raw());
    case JsonKind::kArray: {
      nlohmann::json array = nlohmann::json::array();
      value.each_element([&](const JsonValue& element) {
        array.push_back(copy_of(element));
        return true;
      });
      return array;
    }
    case JsonKind::kObject: {
      nlohmann::json object = nlohmann::json::object();
      value.each_member([&](const JsonMember& member) {
        object[member.name] = copy_of(member.value);
        return true;
      });
      return object;
    }
  }
  return nullptr;
}

bool has_duplicate_names(const std::string& text) {
  std::vector<std::set<std::string>> levels;
  bool found = false;
  const auto callback = [&](int, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) levels.emplace_back();
    if (event == Event::object_end) levels.pop_back();
    if (event == Event::key && !levels.back().insert(parsed.get<std::string>()).second) found = true;
    return true;
  };
  const auto ignored = nlohmann::json::parse(text, callback, false);
  return found;
}

// The standard has no limit, but no double can hold it: the other library refuses such texts.
bool has_number_out_of_range(const std::string& text) {
  try {
    const auto ignored = nlohmann::json::parse(text);
  } catch (const nlohmann::json::out_of_range&) {
    return true;
  } catch (const nlohmann::json::exception&) {
  }
  return false;
}

// The other library as the judge: 60,000 broken variants of a few texts are accepted by both or by none (but for
// duplicate names, which it lets pass, and huge numbers), and where accepted they mean the same.
TEST(JsonText, AgreesWithAnotherLibraryOnMutatedTexts) {
  const std::vector<std::string> seeds = {
      R"({"id":"a","prompt":"x\ny","n":[1,-2.5e3,0,true,false,null,{"k":"\u00e4\ud83d\ude00"}],"z":{}})",
      "{\"tr\xc3\xa4"
      "ce\":\"\xe4\xb8\xad\xf0\x9f\x98\x80\",\"steps\":[{\"i\":0,\"c\":\"\\\"\\\\\\/\"}, {\"i\" : 1}]}",
      R"([[],[[]],{"a":{"b":{"c":[0.1,1e5,-0,12345678901234567890]}}},"",""])",
  };
  const std::string alphabet = std::string("{}[]:,\"\\u0189aefnrtl+-.E \n\t\x01\x7f\x80\xc3\xff\xed\xa0") + '\0';
  std::mt19937 random(20240607);
  const auto pick = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  int accepted = 0;
  for (int round = 0; round < 60'000; ++round) {
    std::string text = seeds[pick(seeds.size())];
    for (size_t edits = 1 + pick(3); edits > 0; --edits) {
      const size_t at = pick(text.size());
      switch (pick(4)) {
        case 0: text[at] = alphabet[pick(alphabet.size())]; break;
        case 1: text.erase(at, 1 + pick(3)); break;
        case 2: text.insert(at, 1, alphabet[pick(alphabet.size())]); break;
        default: text.insert(at, text.substr(pick(text.size()), 1 + pick(8)));
      }
      if (text.empty()) text = " ";
    }
    const bool ours = !find_json_problem(text);
    const bool theirs = nlohmann::json::accept(text);
    if (ours != theirs) {
      ASSERT_TRUE(theirs ? has_duplicate_names(text) : has_number_out_of_range(text)) << text << "\n"
                                                                                      << problem_text(text);
      continue;
    }
    if (!ours) continue;
    ++accepted;
    ASSERT_EQ(copy_of(JsonValue(text)), nlohmann::json::parse(text)) << text;
  }
  EXPECT_GT(accepted, 2'000);
}

TEST(JsonValue, KnowsWhereItsPartsStand) {
  const std::string text = R"(  {"a" : [ 10, "x" ], "b\n":{"c":null}})";
  const JsonValue root(text);
  EXPECT_EQ(root.byte(), 2u);
  std::vector<std::string> seen;
  root.each_member([&](const JsonMember& member) {
    seen.push_back(member.name + "@" + std::to_string(member.name_byte) + "=" + std::string(member.value.raw()) + "@" +
                   std::to_string(member.value.byte()));
    if (member.value.kind() == JsonKind::kArray) {
      member.value.each_element([&](const JsonValue& element) {
        seen.push_back(std::string(element.raw()) + "@" + std::to_string(element.byte()));
        return false;  // stops after the first
      });
    }
    return true;
  });
  EXPECT_EQ(seen, (std::vector<std::string>{"a@3=[ 10, \"x\" ]@9", "10@11", "b\n@22={\"c\":null}@28"}));
}

TEST(JsonValue, IntegersAreExactOrNone) {
  const auto integer = [](const std::string& text) { return JsonValue(text).integer(); };
  EXPECT_EQ(integer("0"), 0);
  EXPECT_EQ(integer("-9223372036854775808"), INT64_MIN);
  EXPECT_EQ(integer("9223372036854775807"), INT64_MAX);
  for (const char* text : {"9223372036854775808", "-0", "1.0", "1e3", "1E3", "123456789012345678901234567890"}) {
    EXPECT_EQ(integer(text), std::nullopt) << text;
  }
}

TEST(JsonValue, DescribesItselfInFewBytes) {
  const auto description = [](const std::string& text) { return JsonValue(text).description(); };
  EXPECT_EQ(description("null"), "null");
  EXPECT_EQ(description("true"), "true");
  EXPECT_EQ(description("-1.50"), "the number -1.50");
  EXPECT_EQ(description(std::string(1000, '1')), "the number " + std::string(40, '1') + "...");
  EXPECT_EQ(description("\"\""), "an empty string");
  EXPECT_EQ(description("\"a\\u0007b\""), "the string \"a\\u0007b\"");
  EXPECT_LE(description("\"" + std::string(1000, 'x') + "\"").size(), 80u);
  EXPECT_EQ(description("[ ]"), "an empty array");
  EXPECT_EQ(description("[1]"), "an array");
  EXPECT_EQ(description("{}"), "an empty object");
  EXPECT_EQ(description("{\"a\":1}"), "an object");
}

TEST(JsonValue, ReadingAnotherKindIsABugOfOurs) {
  EXPECT_THROW(JsonValue("1").string(), Error);
  EXPECT_THROW(JsonValue("\"1\"").integer(), Error);
  EXPECT_THROW(JsonValue("1").boolean(), Error);
  EXPECT_THROW(JsonValue("{}").each_element([](const JsonValue&) { return true; }), Error);
  EXPECT_THROW(JsonValue("[]").each_member([](const JsonMember&) { return true; }), Error);
}

TEST(JsonQuoted, IsReadBackByAnotherLibrary) {
  std::string every_byte;
  for (char c = 0; c < 0x7f; ++c) every_byte += c;
  for (const std::string& text : {every_byte, std::string("\xc3\xa4\xf0\x9f\x98\x80"), std::string()}) {
    EXPECT_EQ(nlohmann::json::parse(json_quoted(text)).get<std::string>(), text);
  }
}

}  // namespace
}  // namespace gemma_sft
