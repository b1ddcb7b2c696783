#include "data/batches/explain_row.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "configs/error.h"
#include "data/batches/batch_stream.h"
#include "tests/data/batches/rows_file.h"
#include "tests/data/text/tiny_tokenizer.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;

std::string error_of(const RowsFile& file, int64_t row, const IndexOptions& options = {}) {
  try {
    explain_row(file.path(), row, tiny_tokenizer(), options);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    return error.what();
  }
  return "no error";
}

TEST(ExplainRow, ShowsWhatTheStreamGivesTheModel) {
  const RowsFile file(training_row("a", "x", "y") + "\n" + training_row("b", "The sum <eos>", "42"));
  auto index = std::make_shared<DatasetIndex>(index_dataset(file.path(), *tiny_tokenizer(), {}));
  BatchStream stream(index, tiny_tokenizer(), {.batch_size = 1, .shuffle = false});
  stream.next();
  const PackedBatch batch = stream.next().micro_batches.at(0);

  const RowExplanation explanation = explain_row(file.path(), 2, tiny_tokenizer(), {});
  EXPECT_EQ(explanation.id, "b");
  EXPECT_EQ(explanation.place.line, 3);
  EXPECT_EQ(explanation.text,
            "<bos><start_of_turn>user\nThe sum <eos><end_of_turn>\n<start_of_turn>model\n42<end_of_turn>\n");
  EXPECT_TRUE(explanation.spells_control_token);
  EXPECT_EQ(explanation.cut_tokens, 0);
  EXPECT_EQ(explanation.target_tokens, 4);
  ASSERT_EQ(static_cast<int64_t>(explanation.tokens.size()), batch.tokens());
  for (size_t i = 0; i < explanation.tokens.size(); ++i) {
    const ExplainedToken& token = explanation.tokens[i];
    EXPECT_EQ(token.id, batch.input_ids[i]);
    EXPECT_EQ(token.position, batch.positions[i]);
    EXPECT_EQ(token.target, batch.targets[i]);
    EXPECT_EQ(token.piece, tiny_tokenizer()->piece(token.id));
    EXPECT_EQ(token.trained, i > 0 && batch.targets[i - 1] >= 0);
  }
}

TEST(ExplainRow, PrintsATableAndJson) {
  const RowsFile file(R"({"id": "t\n", "input_ids": [2, 106, 5, 16], "loss_mask": [0, 0, 1, 0]})");
  const RowExplanation explanation = explain_row(file.path(), 1, tiny_tokenizer(), {.format = DataFormat::kTokens});
  EXPECT_EQ(to_text(explanation), "row t\\n (" + file.path() +
                                      ":1): 4 tokens, 1 of them targets\n"
                                      "\n"
                                      "<bos></blockquote>[multimodal]\n"
                                      "\n"
                                      "position       id  mask   target  piece\n"
                                      "       0        2     0        -  <bos>\n"
                                      "       1      106     0        5  </blockquote>\n"
                                      "       2        5     1        -  [multimodal]\n"
                                      "       3       16     0        -  \\n\n");
  const auto json = nlohmann::json::parse(to_json(explanation));
  EXPECT_EQ(json["id"], "t\n");
  EXPECT_EQ(json["file"], file.path());
  EXPECT_EQ(json["line"], 1);
  EXPECT_EQ(json["text"], "<bos></blockquote>[multimodal]\n");
  EXPECT_EQ(json["pieces"], (nlohmann::json{"<bos>", "</blockquote>", "[multimodal]", "\n"}));
  EXPECT_EQ(json["input_ids"], (nlohmann::json{2, 106, 5, 16}));
  EXPECT_EQ(json["loss_mask"], (nlohmann::json{0, 0, 1, 0}));
  EXPECT_EQ(json["positions"], (nlohmann::json{0, 1, 2, 3}));
  EXPECT_EQ(json["targets"], (nlohmann::json{-1, 5, -1, -1}));
  EXPECT_EQ(json["target_tokens"], 1);
  EXPECT_EQ(json["spells_control_token"], false);
}

TEST(ExplainRow, SaysWhatIsCut) {
  const RowsFile file(training_row("a", "x", "yyyyyyyyyyyyyyyyyyyyyyyy"));
  const int64_t length = static_cast<int64_t>(explain_row(file.path(), 1, tiny_tokenizer(), {}).tokens.size());
  const RowExplanation cut =
      explain_row(file.path(), 1, tiny_tokenizer(), {.max_seq_length = length - 3, .on_long = OnLong::kTruncate});
  EXPECT_EQ(cut.cut_tokens, 3);
  EXPECT_EQ(static_cast<int64_t>(cut.tokens.size()), length - 3);
  EXPECT_THAT(to_text(cut), HasSubstr(", 3 cut off\n"));
  EXPECT_EQ(cut.text.find("<end_of_turn>", cut.text.find("y")), std::string::npos);  // as the table, without the end
  const RowExplanation whole = explain_row(file.path(), 1, tiny_tokenizer(), {.max_seq_length = length - 3});
  EXPECT_EQ(whole.cut_tokens, 0);
  EXPECT_EQ(static_cast<int64_t>(whole.tokens.size()), length);
}

TEST(ExplainRow, SaysWhyTrainingWouldRefuseARowThatCanBeShown) {
  const RowsFile file(training_row("a", "<bos>x", "y"));
  EXPECT_EQ(explain_row(file.path(), 1, tiny_tokenizer(), {}).problem, "");
  const RowExplanation doubled = explain_row(file.path(), 1, tiny_tokenizer(), {.parse_control_tokens = true});
  EXPECT_THAT(doubled.problem, HasSubstr("row: expected exactly one <bos>, found 2"));
  EXPECT_FALSE(doubled.tokens.empty());
}

TEST(ExplainRow, RefusesRowsThatAreNotThere) {
  const RowsFile file(training_row("a", "x", "y") + "{}\n");
  EXPECT_THAT(error_of(file, 0), HasSubstr("there is no row 0; the first is row 1"));
  EXPECT_THAT(error_of(file, 3), HasSubstr("there is no row 3; the file has 2 rows, the first is row 1"));
  EXPECT_THAT(error_of(file, 2), HasSubstr(":2:1: prompt: expected"));
  EXPECT_THAT(error_of(RowsFile(R"({"id": "t", "input_ids": [2, 512], "loss_mask": [0, 1]})"), 1,
                       {.format = DataFormat::kTokens}),
              HasSubstr(":1:30: input_ids[1]: expected an id of the vocabulary, 0 to 511, found 512"));
}

TEST(ExplainRow, IsJsonWhateverTheFileIsCalled) {
  RowExplanation explanation;
  explanation.place.file = "a\x9b\x1b.jsonl";
  EXPECT_NE(to_json(explanation).find("a\\ufffd\\u001b.jsonl"), std::string::npos) << to_json(explanation);
  EXPECT_NO_THROW(nlohmann::json::parse(to_json(explanation)));
}

}  // namespace
}  // namespace gemma_sft
