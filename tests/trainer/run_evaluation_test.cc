#include "trainer/run_evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/text/chat_template.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/run_generation.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class RunEvaluationTest : public ::testing::Test {
 protected:
  RunEvaluationTest() { install_stop_signals(); }
  EvaluationRequest request(const std::string& rows) {
    EvaluationRequest asked;
    asked.model = tiny_.base_model().string();
    asked.input = tiny_.files().write("questions.jsonl", rows);
    asked.max_new_tokens = 5;
    asked.device = "cpu";
    return asked;
  }
  EvaluationSummary run(const EvaluationRequest& asked) {
    rows_.clear();
    return run_evaluation(asked, [&](const EvaluatedRow& row) { rows_.push_back(row); });
  }
  std::string greedy_answer(const std::string& prompt) {
    GenerationRequest asked;
    asked.model = tiny_.base_model().string();
    asked.prompt = prompt;
    asked.max_new_tokens = 5;
    asked.device = "cpu";
    std::string text;
    run_generation(asked, [&](const GeneratedRow& row) { text = row.text; });
    return text;
  }

  TinyRun tiny_;
  std::vector<EvaluatedRow> rows_;
};

TEST(ExtractAnswerTest, is_what_follows_the_last_mark_without_white_space_around_it) {
  EXPECT_EQ(extract_answer("Reasoning:\n1. Answer: 3?\nAnswer: 42\n"), "42");
  EXPECT_EQ(extract_answer(" 42\u00a0"), "42");
  EXPECT_EQ(extract_answer("Answer:"), "");
}

TEST_F(RunEvaluationTest, counts_the_answers_that_are_exactly_right) {
  const std::string right = greedy_answer("Hello");
  ASSERT_NE(extract_answer(right), "");
  const EvaluationSummary summary = run(
      request(json({{"id", "r"}, {"prompt", "Hello"}, {"response", "Reasoning: x\nAnswer:  " + right + " "}}).dump() +
              "\n" + json({{"id", "w"}, {"prompt", "Hello"}, {"response", right + " and more"}}).dump() + "\n"));
  EXPECT_EQ(summary.rows, 2);
  EXPECT_EQ(summary.correct, 1);
  EXPECT_EQ(summary.exact_match, 0.5);
  ASSERT_EQ(rows_.size(), 2u);
  EXPECT_TRUE(rows_[0].correct);
  EXPECT_FALSE(rows_[1].correct);
  EXPECT_EQ(rows_[0].generated, right);
  EXPECT_EQ(rows_[0].prompt, "Hello");
}

TEST_F(RunEvaluationTest, control_tokens_in_a_row_are_text_unless_asked_for) {
  EvaluationRequest asked = request(R"({"prompt": "a<unused7>b", "response": "c<unused7>d"})");
  const EvaluationSummary literal = run(asked);
  asked.parse_control_tokens = true;
  EXPECT_LT(run(asked).target_tokens, literal.target_tokens);
}

TEST_F(RunEvaluationTest, the_loss_of_random_weights_is_that_of_a_uniform_guess) {
  const EvaluationSummary summary = run(request(make_rows(6)));
  ASSERT_TRUE(summary.loss);
  EXPECT_NEAR(*summary.loss, std::log(512.0), 0.1);
  EXPECT_GT(summary.target_tokens, 6 * 3);
}

TEST_F(RunEvaluationTest, rows_of_an_evaluation_set_have_an_answer_and_no_loss) {
  const std::string right = greedy_answer("Hello");
  const EvaluationSummary summary = run(
      request(json({{"id", "e"}, {"prompt", "Hello"}, {"expected_answer", right}, {"category", "x"}}).dump() + "\n"));
  EXPECT_EQ(summary.correct, 1);
  EXPECT_FALSE(summary.loss);
}

TEST_F(RunEvaluationTest, bad_rows_and_empty_files_are_errors_with_their_place) {
  const auto message = [&](const std::string& rows) {
    try {
      run(request(rows));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message("{\"prompt\": \"x\", \"expected_answer\": \"\"}\n"),
              HasSubstr("questions.jsonl:1:36: expected_answer: expected a non-empty string, found an empty string"));
  EXPECT_THAT(message("{\"prompt\": \"x\"}\n"), HasSubstr("questions.jsonl:1"));
  EXPECT_THAT(message("\n"), HasSubstr("has no row"));
}

TEST_F(RunEvaluationTest, a_prompt_beyond_the_models_positions_is_refused_and_an_answer_beyond_them_counted) {
  const EvaluationRequest asked = request(R"({"prompt": "Hello", "expected_answer": "x"})");
  EXPECT_EQ(run(asked).beyond_maximum, 0);
  const auto set_maximum = [&](size_t tokens) {
    json config = json::parse(read_file(tiny_.base_model() / "config.json"));
    config["max_position_embeddings"] = tokens;
    tiny_.files().write("base/config.json", config.dump());
  };
  const auto tokenizer = Tokenizer::load(tiny_.base_model());
  const size_t tokens = encode_segments(*tokenizer, render_for_generation({{.role = Role::kUser, .text = "Hello"}}),
                                        ControlTokens::kLiteral)
                            .input_ids.size();
  set_maximum(tokens);
  EXPECT_EQ(run(asked).beyond_maximum, 1);
  EXPECT_TRUE(rows_.at(0).beyond_maximum);
  set_maximum(tokens - 1);
  try {
    run(asked);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_THAT(error.what(), HasSubstr("questions.jsonl:1: the prompt has " + std::to_string(tokens) + " tokens"));
  }
}

TEST_F(RunEvaluationTest, a_row_named_by_a_file_whose_name_is_not_utf_8_is_written_all_the_same) {
  EXPECT_THAT(to_json(EvaluatedRow{.id = "caf\xe9:1", .prompt = "p", .expected = "e", .generated = "g"}),
              HasSubstr("{\"id\":\"caf\ufffd:1\""));
}

TEST_F(RunEvaluationTest, asks_no_more_rows_than_wanted) {
  EvaluationRequest asked = request(make_rows(6));
  asked.max_samples = 2;
  EXPECT_EQ(run(asked).rows, 2);
}

}  // namespace
}  // namespace gemma_sft
