#include "data/text/tokenize_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "configs/error.h"
#include "data/text/chat_template.h"
#include "tests/data/batches/rows_file.h"
#include "tests/data/text/tiny_tokenizer.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;

struct Result {
  std::vector<nlohmann::json> rows;
  TokenizeCounts counts;
};

Result tokenize(const RowsFile& file, const TokenizeOptions& options = {}) {
  Result result;
  result.counts = tokenize_file(file.path(), *tiny_tokenizer(), options, [&](std::string_view line) {
    EXPECT_EQ(line.find('\n'), line.size() - 1);
    result.rows.push_back(nlohmann::json::parse(line));
  });
  return result;
}

std::string error_of(const RowsFile& file) {
  try {
    tokenize(file);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    return error.what();
  }
  return "no error";
}

nlohmann::json expected(const std::string& id, const std::vector<int32_t>& ids, const std::vector<uint8_t>& mask) {
  return {{"id", id}, {"input_ids", ids}, {"loss_mask", mask}};
}

nlohmann::json templated(const std::string& id, const std::vector<Turn>& turns) {
  const TokenizedExample example =
      encode_segments(*tiny_tokenizer(), render_for_training(turns), ControlTokens::kLiteral);
  return expected(id, example.input_ids, example.loss_mask);
}

TEST(TokenizeFile, TrainingExamplesOfEveryFormatGoThroughTheTemplate) {
  const RowsFile file(
      training_row("a", " x ", "y") + "\n" +
      R"({"messages": [{"role": "user", "content": "x"}, {"role": "model", "content": "y"}]})"
      "\n"
      R"({"id": "t", "prompt": "x", "steps": [{"i": 0, "type": "s", "content": "c"}], "final_answer": "z"})"
      "\n"
      R"({"id": "e", "prompts": "x", "trace_steps": ["c"], "final_answer": "z", "metadata": {}})"
      "\n"
      R"({"id": "s", "prompts": "<start_of_turn>user\nx<end_of_turn>\n<start_of_turn>model\nAnswer: z<end_of_turn>", )"
      R"("final_answer": "z"})"
      "\n"
      R"({"id": "i", "input_ids": [2, 9, 8], "loss_mask": [0, 1, 0]})"
      "\n");
  const Result result = tokenize(file);
  const std::vector<Turn> trace = {{Role::kUser, "x\n\nPlease show your reasoning steps."},
                                   {Role::kModel, "Reasoning:\n1. c\nAnswer: z"}};
  ASSERT_EQ(result.rows.size(), 6u);
  EXPECT_EQ(result.rows[0], templated("a", {{Role::kUser, "x"}, {Role::kModel, "y"}}));
  EXPECT_EQ(result.rows[1], templated(file.path() + ":3", {{Role::kUser, "x"}, {Role::kModel, "y"}}));
  EXPECT_EQ(result.rows[2], templated("t", trace));
  EXPECT_EQ(result.rows[3], templated("e", trace));
  EXPECT_EQ(result.rows[4], templated("s", {{Role::kUser, "x"}, {Role::kModel, "Answer: z"}}));
  EXPECT_EQ(result.rows[5], expected("i", {2, 9, 8}, {0, 1, 0}));
  EXPECT_EQ(result.counts.rows, 6);
  int64_t tokens = 0;
  int64_t targets = 0;
  for (const auto& row : result.rows) {
    tokens += static_cast<int64_t>(row["input_ids"].size());
    for (const auto& mask : row["loss_mask"]) targets += mask.get<int>();
  }
  EXPECT_EQ(result.counts.tokens, tokens);
  EXPECT_EQ(result.counts.target_tokens, targets);
  EXPECT_EQ(result.counts.control_text_rows, 0);
}

TEST(TokenizeFile, TextRowsStandAlone) {
  const auto tokenizer = tiny_tokenizer();
  const std::string text = " <bos>The sum\n";
  const RowsFile file(R"({"id": "a", "text": " <bos>The sum\n"})"
                      "\n"
                      R"({"text": ""})"
                      "\n");
  const auto zeros = [](const std::vector<int32_t>& ids) { return std::vector<uint8_t>(ids.size(), 0); };
  const auto literal = tokenizer->encode_literal(text);
  Result result = tokenize(file);
  EXPECT_EQ(result.rows[0], expected("a", literal, zeros(literal)));
  EXPECT_EQ(result.rows[1], expected(file.path() + ":2", {}, {}));
  EXPECT_EQ(result.counts.control_text_rows, 1);

  std::vector<int32_t> with_bos = {2};
  with_bos.insert(with_bos.end(), literal.begin(), literal.end());
  EXPECT_EQ(tokenize(file, {.add_bos = true}).rows[0], expected("a", with_bos, zeros(with_bos)));
  const auto parsed = tokenizer->encode_parsing_control_tokens(text);
  EXPECT_EQ(std::count(parsed.begin(), parsed.end(), 2), 1);
  EXPECT_EQ(tokenize(file, {.parse_control_tokens = true}).rows[0], expected("a", parsed, zeros(parsed)));
}

TEST(TokenizeFile, BosIsNotAddedToWhatTheTemplateMade) {
  const RowsFile file(training_row("a", "x", "y"));
  EXPECT_EQ(tokenize(file, {.add_bos = true}).rows, tokenize(file).rows);
}

TEST(TokenizeFile, ErrorsNameThePlace) {
  const RowsFile file(training_row("a", "x", "y") + "{\"text\": 5}\n");
  EXPECT_EQ(error_of(file), file.path() + ":2:10: text: expected a string, found the number 5");
  EXPECT_THAT(error_of(RowsFile("{\"prompt\": \"x\"}")), HasSubstr(":1:1: response: expected"));
  EXPECT_THAT(error_of(RowsFile("{\"prompt\": \"x\",}")), HasSubstr(":1:16: row: expected"));
  EXPECT_THAT(error_of(RowsFile("{\"text\": \"x\", \"id\": 1}")), HasSubstr(":1:21: id: expected a non-empty string"));
  try {
    tokenize_file("/no/such.jsonl", *tiny_tokenizer(), {}, [](std::string_view) {});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_STREQ(error.what(), "Input file not found: /no/such.jsonl; check --input");
  }
}

TEST(TokenizeFile, StopsWhenAskedTo) {
  int asked = 0;
  const Result result = tokenize(RowsFile("{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"text\": \"c\"}\n"),
                                 {.stop_requested = [&] { return ++asked > 2; }});
  EXPECT_EQ(result.rows.size(), 2u);
}

}  // namespace
}  // namespace gemma_sft
