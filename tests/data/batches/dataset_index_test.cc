#include "data/batches/dataset_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "data/text/chat_template.h"
#include "tests/data/batches/rows_file.h"
#include "tests/data/text/tiny_tokenizer.h"

namespace gemma_sft {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

DatasetIndex index_of(const RowsFile& file, const IndexOptions& options = {}) {
  return index_dataset(file.path(), *tiny_tokenizer(), options);
}

std::string error_of(const RowsFile& file, const IndexOptions& options = {}) {
  try {
    index_of(file, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    return error.what();
  }
  return "no error";
}

// Ids of {prompt, response}, through the template.
TokenizedExample tokenized(const std::string& prompt, const std::string& response) {
  return encode_segments(*tiny_tokenizer(), render_for_training({{Role::kUser, prompt}, {Role::kModel, response}}),
                         ControlTokens::kLiteral);
}

int64_t tokens_of(const std::string& prompt, const std::string& response) {
  return static_cast<int64_t>(tokenized(prompt, response).input_ids.size());
}

TEST(DatasetIndex, MeasuresEveryRow) {
  const std::string text = training_row("a", "What?", "That.") + "\n" + training_row("b", "The sum", "42");
  const RowsFile file(text);
  const DatasetIndex index = index_of(file);
  ASSERT_EQ(index.train.size(), 2u);
  EXPECT_EQ(index.rows_read, 2);
  EXPECT_EQ(index.train[0].byte, 0u);
  EXPECT_EQ(index.train[0].line, 1u);
  EXPECT_EQ(index.train[0].tokens, tokens_of("What?", "That."));
  EXPECT_EQ(index.train[1].byte, text.find("{\"id\": \"b\""));
  EXPECT_EQ(index.train[1].line, 3u);
  EXPECT_EQ(index.train[1].tokens, tokens_of("The sum", "42"));
  EXPECT_EQ(index.train[1].target_tokens, 4u);  // "4", "2", end of turn, newline
  EXPECT_EQ(index.longest_tokens, std::max(index.train[0].tokens, index.train[1].tokens));
  EXPECT_EQ(index.sha256, sha256_hex(text));
  EXPECT_TRUE(index.validation.empty());
  EXPECT_EQ(index.skipped_rows, 0);
  EXPECT_EQ(sizeof(IndexedRow), 24u);
}

TEST(DatasetIndex, RefusesEqualIdsButNotEqualContents) {
  EXPECT_EQ(index_of(RowsFile(training_row("a", "x", "y") + training_row("b", "x", "y"))).train.size(), 2u);
  const RowsFile file(training_row("a", "x", "y") + training_row("b", "x", "y") + training_row("a", "z", "w"));
  EXPECT_EQ(error_of(file), file.path() + ": 1 of 3 rows cannot be trained on:\n  " + file.path() +
                                ":3:8: id: expected an id of its own, found \"a\" as in line 1\n"
                                "fix the rows, or set dataset.on_bad_record: skip");
}

TEST(DatasetIndex, WhereNoRowIsGoodSkippingIsNoRemedy) {
  const std::string error = error_of(RowsFile("{\"prompt\": 5}\n{}\n"));
  EXPECT_THAT(error, HasSubstr(": 2 of 2 rows cannot be trained on:\n"));
  EXPECT_THAT(error, EndsWith("\nfix the rows"));
}

TEST(DatasetIndex, FindsEveryDuplicateAmongManyIds) {
  std::string text;
  for (int i = 0; i < 5'000; ++i) text += training_row("row " + std::to_string(i), "x", "y");
  for (int i = 0; i < 5'000; i += 7) text += training_row("row " + std::to_string(i), "x", "y");
  const DatasetIndex index = index_of(RowsFile(text), {.on_bad_record = OnBadRecord::kSkip});
  EXPECT_EQ(index.train.size(), 5'000u);
  EXPECT_EQ(index.skipped_rows, 715);
  EXPECT_THAT(index.skipped[1].message, HasSubstr("found \"row 7\" as in line 8"));
}

TEST(DatasetIndex, ARowWithoutIdNeverMeetsAnother) {
  const RowsFile file(R"({"prompt": "x", "response": "y"})"
                      "\n"
                      R"({"prompt": "x", "response": "y"})");
  EXPECT_EQ(index_of(file).train.size(), 2u);
}

TEST(DatasetIndex, ReportsTwentyProblemsAndTheExactTotal) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += training_row("good" + std::to_string(i), "x", "y") + "{\"prompt\": 5}\n";
  const RowsFile file(text);
  const std::string error = error_of(file);
  EXPECT_THAT(error, HasSubstr(": 30 of 60 rows cannot be trained on:\n"));
  EXPECT_THAT(error, HasSubstr("rows.jsonl:40:12: prompt: "));
  EXPECT_THAT(error, Not(HasSubstr("rows.jsonl:42:")));
  EXPECT_THAT(error, HasSubstr("\n  and 10 more\nfix the rows, or set dataset.on_bad_record: skip"));
}

TEST(DatasetIndex, SkippingCountsEveryBadRowAndTellsOfEach) {
  std::string text = training_row("a", "x", "y");
  for (int i = 0; i < 100'500; ++i) text += "{}\n";
  int64_t told = 0;
  const DatasetIndex index =
      index_of(RowsFile(text), {.on_bad_record = OnBadRecord::kSkip, .on_skipped = [&](const RowProblem& row) {
                                  ++told;
                                  EXPECT_EQ(row.place.line, told + 1);
                                }});
  EXPECT_EQ(index.train.size(), 1u);
  EXPECT_EQ(index.skipped_rows, 100'500);
  EXPECT_EQ(told, 100'500);
  EXPECT_EQ(index.skipped.size(), DatasetIndex::kMaxSkippedKept);  // the list is bounded, the count is not
  EXPECT_EQ(index.rows_read, 100'501);
}

TEST(DatasetIndex, SkippingEveryRowIsAnError) {
  EXPECT_THAT(error_of(RowsFile("{}\n"), {.on_bad_record = OnBadRecord::kSkip}),
              HasSubstr("no row is left, 1 of 1 were skipped; the first because of\n  "));
  EXPECT_THAT(error_of(RowsFile("\n \n")), HasSubstr("holds no rows"));
}

TEST(DatasetIndex, ALongRowIsABadRecordUnlessOnLongSaysOtherwise) {
  const int64_t length = tokens_of("The sum of the product", "The answer is 42");
  const RowsFile file(training_row("a", "x", "y") + training_row("b", "The sum of the product", "The answer is 42"));
  EXPECT_EQ(index_of(file, {.max_seq_length = length}).train.size(), 2u);

  const std::string error = error_of(file, {.max_seq_length = length - 1});
  EXPECT_THAT(error, HasSubstr(":2:1: row: expected at most " + std::to_string(length - 1) +
                               " tokens (model.max_seq_length), found " + std::to_string(length)));
  EXPECT_THAT(error, HasSubstr("raise model.max_seq_length or set dataset.on_long: skip or truncate"));
  const DatasetIndex as_bad = index_of(file, {.max_seq_length = length - 1, .on_bad_record = OnBadRecord::kSkip});
  EXPECT_EQ(as_bad.train.size(), 1u);
  EXPECT_EQ(as_bad.skipped_rows, 1);

  const DatasetIndex skipped = index_of(file, {.max_seq_length = length - 1, .on_long = OnLong::kSkip});
  EXPECT_EQ(skipped.train.size(), 1u);
  EXPECT_EQ(skipped.skipped_rows, 1);
  EXPECT_EQ(skipped.skipped[0].place.line, 2);

  const DatasetIndex cut = index_of(file, {.max_seq_length = length - 1, .on_long = OnLong::kTruncate});
  ASSERT_EQ(cut.train.size(), 2u);
  EXPECT_EQ(cut.train[1].tokens, length - 1);
  EXPECT_EQ(cut.truncated.size(), 1u);
  EXPECT_EQ(cut.truncated_targets.size(), 1u);
  EXPECT_EQ(cut.truncated_targets[0], 2u);
  EXPECT_EQ(cut.skipped_rows, 0);
}

TEST(DatasetIndex, ABookInOneRowIsRefusedWithoutTokenisingIt) {
  // One word of 40 MB would take gigabytes.
  const RowsFile file(training_row("a", "x", "y") + training_row("b", "x", std::string(40'000'000, 'a')));
  const DatasetIndex index = index_of(file, {.on_long = OnLong::kSkip});
  EXPECT_EQ(index.train.size(), 1u);
  EXPECT_THAT(index.skipped.at(0).message,
              HasSubstr(":2:1: row: expected at most 2048 tokens (model.max_seq_length), found at least 430107"));
}

TEST(DatasetIndex, ARowWhoseTargetsAreAllCutOffIsABadRecord) {
  const RowsFile file(training_row("a", "x", "y") + training_row("b", "The sum of the product of the sum", "4"));
  const int64_t kept = tokens_of("x", "y");
  ASSERT_GT(tokens_of("The sum of the product of the sum", "4"), kept + 3);
  const std::string error = error_of(file, {.max_seq_length = kept, .on_long = OnLong::kTruncate});
  EXPECT_THAT(error, HasSubstr(":2:1: row: expected a target among the first " + std::to_string(kept) +
                               " tokens (model.max_seq_length), found none: all 3 would be cut off"));
}

TEST(DatasetIndex, TruncationThatCutsNoTargetIsToldApart) {
  // The tail after the last target is cut.
  const RowsFile file(R"({"id": "t", "input_ids": [2, 5, 6, 7, 8], "loss_mask": [0, 1, 0, 0, 0]})");
  const DatasetIndex index =
      index_of(file, {.format = DataFormat::kTokens, .max_seq_length = 3, .on_long = OnLong::kTruncate});
  EXPECT_EQ(index.train[0].tokens, 3u);
  EXPECT_EQ(index.truncated.size(), 1u);
  EXPECT_TRUE(index.truncated_targets.empty());
}

TEST(DatasetIndex, ChecksIdsAgainstTheVocabulary) {
  const RowsFile file(R"({"id": "t", "input_ids": [2, 5, 512], "loss_mask": [0, 1, 0]})");
  EXPECT_THAT(error_of(file, {.format = DataFormat::kTokens}),
              HasSubstr(":1:33: input_ids[2]: expected an id of the vocabulary, 0 to 511, found 512"));
  EXPECT_EQ(index_of(file, {.format = DataFormat::kTokens, .vocab_size = 513}).train.size(), 1u);
}

TEST(DatasetIndex, StopsAfterMaxSamplesGoodRows) {
  const RowsFile file("{}\n" + training_row("a", "x", "y") + training_row("b", "x", "y") + "{}\n" + "{}\n");
  const DatasetIndex index = index_of(file, {.on_bad_record = OnBadRecord::kSkip, .max_samples = 2});
  EXPECT_EQ(index.train.size(), 2u);
  EXPECT_EQ(index.skipped_rows, 1);
  EXPECT_EQ(index.rows_read, 3);
  EXPECT_FALSE(index.sha256.empty());  // of the whole file, also of what was not read as rows
}

TEST(DatasetIndex, CountsAndNamesRowsThatSpellControlTokens) {
  const RowsFile file(training_row("a", "x", "y") + training_row("b", "<start_of_turn>model", "y") +
                      training_row("c", "x", "y <eos>") + training_row("d", "<b>x</b>", "<0x41>"));
  const DatasetIndex index = index_of(file);
  EXPECT_EQ(index.train.size(), 4u);
  EXPECT_EQ(index.control_text.size(), 2u);
  EXPECT_EQ(index.control_text[0], 2u);
  EXPECT_EQ(index.control_text[1], 3u);
}

TEST(DatasetIndex, CountsTheRowsWithFieldsThatAreNotRead) {
  std::string rows;
  for (int i = 0; i < 30; ++i) {
    rows += R"({"prompt":"a","response":"b","system":"s","field)" + std::to_string(i) + "\":1}\n";
  }
  const DatasetIndex index = index_of(RowsFile(rows));
  EXPECT_EQ(index.unread_fields.at("system"), 30);
  EXPECT_EQ(index.unread_fields.at("field0"), 1);
  EXPECT_EQ(index.unread_fields.size(), DatasetIndex::kMaxUnreadFields);
}

TEST(DatasetIndex, ASecondBosFromParsedTextIsABadRecord) {
  const RowsFile file(training_row("a", "x", "y") + training_row("b", "<bos>x", "y"));
  EXPECT_EQ(index_of(file).train.size(), 2u);
  EXPECT_THAT(error_of(file, {.parse_control_tokens = true}),
              HasSubstr(":2:1: row: expected exactly one <bos>, found 2: the text spells it"));
}

TEST(DatasetIndex, SplitsByTheTrimmedFirstPrompt) {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    const std::string n = std::to_string(i % 200);
    text +=
        training_row("a" + std::to_string(i), (i < 200 ? "" : " ") + ("prompt " + n) + (i < 200 ? " \\n" : ""), "y");
  }
  const DatasetIndex index = index_of(RowsFile(text), {.validation_fraction = 0.25});
  EXPECT_EQ(index.train.size() + index.validation.size(), 400u);
  std::set<uint32_t> train;
  std::set<uint32_t> validation;
  for (const auto& row : index.train) train.insert((row.line - 1) % 200);
  for (const auto& row : index.validation) validation.insert((row.line - 1) % 200);
  EXPECT_EQ(train.size() + validation.size(), 200u);  // no prompt on both sides
  EXPECT_NEAR(static_cast<double>(validation.size()), 50, 4 * std::sqrt(200 * 0.25 * 0.75));
}

TEST(DatasetIndex, APromptIsOnTheSameSideWhateverItsFormat) {
  // SHA-256("What is 6 x 7?") = c38a..., so 0xc38a.../2^256 = 0.389...
  EXPECT_FALSE(is_validation_prompt("What is 6 x 7?", 0.763));
  EXPECT_TRUE(is_validation_prompt("What is 6 x 7?", 0.764));
  EXPECT_TRUE(is_validation_prompt("\xc2\xa0 What is 6 x 7?\n", 0.764));
  EXPECT_FALSE(is_validation_prompt("anything", 0.0));
  EXPECT_TRUE(is_validation_prompt("anything", 1.0));
  const RowsFile file(training_row("a", "What is 6 x 7?", "42") +
                      R"({"id": "b", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": )"
                      R"("What is 6 x 7? "}, {"role": "assistant", "content": "42"}]})"
                      "\n" +
                      training_row("c", "Who?", "42"));
  const DatasetIndex index = index_of(file, {.validation_fraction = 0.764});
  ASSERT_EQ(index.validation.size(), 2u);
  EXPECT_EQ(index.train.size(), 1u);
}

TEST(DatasetIndex, ASplitThatLeavesNothingToTrainIsAnError) {
  EXPECT_THAT(error_of(RowsFile(training_row("a", "x", "y")), {.validation_fraction = 0.999999999}),
              HasSubstr("all 1 rows fell to the validation side; lower dataset.validation_fraction"));
}

TEST(DatasetIndex, ReturnsEarlyWhenAskedToStop) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += training_row(std::to_string(i), "x", "y");
  int asked = 0;
  const DatasetIndex index = index_of(RowsFile(text), {.stop_requested = [&] { return ++asked > 10; }});
  EXPECT_EQ(index.train.size(), 10u);
  EXPECT_EQ(index.sha256, "");
}

TEST(DatasetIndex, AFileThatChangesMeanwhileIsAnError) {
  const RowsFile file(training_row("a", "x", "y") + training_row("b", "x", "y"));
  int asked = 0;
  EXPECT_THAT(error_of(file, {.stop_requested =
                                  [&] {
                                    if (++asked == 2)
                                      file.write(training_row("a", "x", "y") + training_row("c", "x", "y w"));
                                    return false;
                                  }}),
              HasSubstr("changed while it was being read"));
}

TEST(DatasetIndex, AnAbsentFileIsAnErrorOfTheData) {
  try {
    index_dataset("/no/such/rows.jsonl", *tiny_tokenizer(), {});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_THAT(error.what(), HasSubstr("not found: /no/such/rows.jsonl"));
  }
}

TEST(RowLoader, GivesWhatTheIndexMeasured) {
  const RowsFile file(training_row("a", "x", "y") + training_row("b", "The sum of the product", "The answer is 42"));
  const int64_t limit = tokens_of("The sum of the product", "The answer is 42") - 2;
  const DatasetIndex index = index_of(file, {.max_seq_length = limit, .on_long = OnLong::kTruncate});
  RowLoader loader(index, tiny_tokenizer(), false);
  TokenizedExample expected = tokenized("The sum of the product", "The answer is 42");
  expected.input_ids.resize(static_cast<size_t>(limit));
  expected.loss_mask.resize(static_cast<size_t>(limit));
  const TokenizedExample second = loader.load(index.train[1]);
  EXPECT_EQ(second.id, "b");
  EXPECT_EQ(second.input_ids, expected.input_ids);
  EXPECT_EQ(second.loss_mask, expected.loss_mask);
  EXPECT_EQ(loader.load(index.train[0]).input_ids, tokenized("x", "y").input_ids);
}

TEST(RowLoader, RefusesARowThatChangedDuringTheRun) {
  const RowsFile file(training_row("a", "x", "y") + training_row("b", "1", "2"));
  const DatasetIndex index = index_of(file);
  const auto error_of_second = [&] {
    RowLoader loader(index, tiny_tokenizer(), false);
    try {
      loader.load(index.train[1]);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(error_of_second(), "no error");
  file.write(training_row("a", "x", "y") + training_row("b", "1", "3"));  // as many tokens as before
  EXPECT_THAT(error_of_second(), HasSubstr("rows.jsonl:2: the row is not what it was when the run began"));
  file.write(training_row("a", "x", "y"));
  EXPECT_THAT(error_of_second(), HasSubstr("rows.jsonl:2: the row is not what it was when the run began"));
}

}  // namespace
}  // namespace gemma_sft
