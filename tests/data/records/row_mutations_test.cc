// Rows broken at random: the parser must come back with a place inside the row, whatever it is given.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "data/files/json_text.h"
#include "data/files/utf8.h"
#include "data/records/example_reader.h"

namespace gemma_sft {
namespace {

const std::vector<std::string> kRows = {
    // kFormats has the format of each
    R"({"id":"a","prompt":"Say \u00e4 \"hi\"","response":"hi\n","metadata":{"k":[1,2.5e3,null,true]}})",
    R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"m"}]})",
    R"({"id":"b","prompts":"<start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>","final_answer":"A"})",
    R"({"prompt":"Q","steps":[{"i":0,"type":"t","content":"S"},{"i":1,"content":"T"}],"final_answer":"A","meta":null})",
    R"({"prompts":"Q","trace_steps":["S","T"],"final_answer":"A","metadata":{}})",
    R"({"input_ids":[2,10,20,30],"loss_mask":[0,0,1,1]})",
    "{\"prompt\":\"\xe4\xb8\xad\xf0\x9f\x98\x80\",\"response\":\"\\ud83d\\ude00\"}",
};

constexpr DataFormat kFormats[] = {DataFormat::kTrainingExample, DataFormat::kTrainingExample, DataFormat::kTunixSft,
                                   DataFormat::kTrace,           DataFormat::kTrace,           DataFormat::kTokens,
                                   DataFormat::kTrainingExample};

TEST(RowMutations, EveryOneIsAnExampleOrAProblemWithAPlaceInTheRow) {
  const std::vector<std::string> pieces = {"{",
                                           "}",
                                           "[",
                                           "]",
                                           ":",
                                           ",",
                                           "\"",
                                           "\\",
                                           "\\u",
                                           "\\ud800",
                                           "null",
                                           "-1",
                                           "0.5",
                                           "1e9",
                                           "\r",
                                           "\t",
                                           " ",
                                           "\xff",
                                           "\xc3",
                                           "\xef\xbb\xbf",
                                           "99999999999999999999",
                                           "true",
                                           "\"id\"",
                                           "\"\"",
                                           "\"role\"",
                                           "\"prompt\"",
                                           "<end_of_turn>\\n<start_of_turn>",
                                           "<start_of_turn>",
                                           "\\n",
                                           std::string(1, '\0')};
  std::mt19937 random(77);
  const auto pick = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  int examples = 0;
  int problems = 0;
  for (int round = 0; round < 40'000; ++round) {
    const size_t which = pick(kRows.size());
    std::string row = kRows[which];
    for (size_t edits = 1 + pick(3); edits > 0; --edits) {
      const size_t at = pick(row.size() + 1);
      switch (pick(5)) {
        case 0: row.insert(at, pieces[pick(pieces.size())]); break;
        case 1: row.erase(at, 1 + pick(4)); break;
        case 2: row.replace(at, 1, pieces[pick(pieces.size())]); break;
        case 3: row.insert(at, row.substr(pick(row.size() + 1), pick(12))); break;
        default:
          if (at < row.size()) row[at] = static_cast<char>(row[at] ^ (1 << pick(8)));
      }
    }
    const DataFormat format = pick(8) == 0 ? static_cast<DataFormat>(pick(4)) : kFormats[which];
    const auto content = parse_example(row, "f", 2, format);
    if (const auto* example = std::get_if<Example>(&content)) {
      ++examples;
      // What was accepted is whole: this is what the later stages lean on.
      ASSERT_FALSE(find_json_problem(row)) << row;
      ASSERT_FALSE(example->id.empty());
      ASSERT_EQ(format == DataFormat::kTokens, example->tokens.has_value());
      for (const Turn& turn : example->turns) ASSERT_FALSE(turn.text.empty() || find_utf8_problem(turn.text)) << row;
      ASSERT_TRUE(example->tokens || (example->turns.size() >= 2 && example->turns.back().role == Role::kModel)) << row;
      continue;
    }
    ++problems;
    const RowProblem& problem = std::get<RowProblem>(content);
    ASSERT_GE(problem.column, 1) << row;
    ASSERT_LE(problem.column, static_cast<int64_t>(row.size()) + 1) << row;
    ASSERT_EQ(problem.message.find("f:2:" + std::to_string(problem.column) + ": " + problem.field + ": expected "), 0u)
        << problem.message;
    ASSERT_LT(problem.message.size(), 420u) << problem.message;
    ASSERT_FALSE(find_utf8_problem(problem.message)) << problem.message;
    for (const char c : problem.message) ASSERT_FALSE(c >= 0 && c < 0x20) << problem.message;
  }
  EXPECT_GT(examples, 1'000);
  EXPECT_GT(problems, 20'000);
}

TEST(RowMutations, EveryTruncationOfARowIsAProblem) {
  for (const std::string& row : kRows) {
    for (size_t size = 0; size < row.size(); ++size) {
      for (const DataFormat format :
           {DataFormat::kTrainingExample, DataFormat::kTunixSft, DataFormat::kTrace, DataFormat::kTokens}) {
        const auto content = parse_example(row.substr(0, size), "f", 1, format);
        ASSERT_TRUE(std::holds_alternative<RowProblem>(content)) << row.substr(0, size);
      }
    }
  }
}

}  // namespace
}  // namespace gemma_sft
