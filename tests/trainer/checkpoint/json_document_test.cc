#include "trainer/checkpoint/json_document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::string refusal(const std::function<void()>& read) {
  try {
    read();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(JsonDocument, IsCheckedBeforeAnythingIsBuilt) {
  const TempDir dir;
  EXPECT_EQ(read_json_document(dir.write("a.json", R"({"a":[1,{"b":null}]})")), json::parse(R"({"a":[1,{"b":null}]})"));
  const auto refused = [&](const std::string& text) {
    return refusal([&, path = dir.write("a.json", text)] { read_json_document(path); });
  };
  EXPECT_EQ(refused("{\"a\":1,\"a\":2}"), "a.json: byte 7: expected each member name once, found \"a\" again");
  EXPECT_EQ(refused(std::string(17, '[')), "a.json: byte 16: expected at most 16 levels of nesting, found more");
  EXPECT_THAT(refused("{\"a\":\"\xff\"}"), HasSubstr("byte 6: expected valid UTF-8"));
  EXPECT_THAT(refused("\r"), HasSubstr("expected a JSON value, found the end of the text"));
  EXPECT_THAT(refused(std::string((1 << 20) + 1, ' ')), HasSubstr("bytes long, expected at most 1048576"));
}

TEST(JsonDocument, WholeNumbersAreNeitherCutNorWrapped) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(whole_number(json(0), "n"), 0);
  EXPECT_EQ(whole_number(json(kMost), "n"), kMost);
  EXPECT_EQ(whole_number(json(uint64_t{7}), "n", 7), 7);
  for (const char* text : {"-1", "1.5", "3.0", "1e300", "9223372036854775808", "18446744073709551616", "\"3\"", "null",
                           "true", "[3]", "{}"}) {
    EXPECT_THAT(refusal([&] { whole_number(json::parse(text), "steps"); }),
                HasSubstr("steps: expected a whole number from 0 on, found "))
        << text;
  }
}

}  // namespace
}  // namespace gemma_sft
