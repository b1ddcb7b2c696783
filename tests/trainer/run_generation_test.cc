#include "trainer/run_generation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/safetensors.h"
#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"
#include "model/gemma_config.h"
#include "model/weight_files.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class RunGenerationTest : public ::testing::Test {
 protected:
  RunGenerationTest() { install_stop_signals(); }
  GenerationRequest request(const std::string& prompt) {
    GenerationRequest asked;
    asked.model = tiny_.base_model().string();
    asked.prompt = prompt;
    asked.max_new_tokens = 6;
    asked.device = "cpu";
    return asked;
  }
  GenerationRequest file_request(const std::string& rows) {
    GenerationRequest asked = request("");
    asked.prompt.reset();
    asked.input = tiny_.files().write("prompts.jsonl", rows);
    return asked;
  }
  std::vector<GeneratedRow> run(const GenerationRequest& asked) {
    std::vector<GeneratedRow> rows;
    run_generation(asked, [&](const GeneratedRow& row) { rows.push_back(row); });
    return rows;
  }
  std::string error_of(const GenerationRequest& asked, ErrorKind kind) {
    try {
      run(asked);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no error";
    return "";
  }

  TinyRun tiny_;
};

TEST_F(RunGenerationTest, a_prompt_is_put_into_the_template_and_ready_made_ids_are_not) {
  const auto tokenizer = Tokenizer::load(tiny_.base_model());
  const std::vector<int32_t> ids =
      encode_segments(*tokenizer, render_for_generation({{.role = Role::kUser, .text = "Hello"}}),
                      ControlTokens::kLiteral)
          .input_ids;
  const auto rows = run(file_request(json({{"id", "a"}, {"prompt", "Hello"}}).dump() + "\n" +
                                     json({{"id", "b"}, {"input_ids", ids}}).dump() + "\n"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].id, "a");
  EXPECT_EQ(rows[1].id, "b");
  EXPECT_EQ(rows[0].output_ids, rows[1].output_ids);
  EXPECT_EQ(rows[0].output_ids, run(request("Hello"))[0].output_ids);
  EXPECT_LE(rows[0].output_ids.size(), 6u);
}

TEST_F(RunGenerationTest, weights_that_are_not_what_config_json_says_are_refused_before_there_is_room_for_the_model) {
  namespace fs = std::filesystem;
  const fs::path folder = tiny_.files() / "large";
  fs::copy(tiny_.base_model(), folder);
  json config = json::parse(read_file(folder / "config.json"));
  config["hidden_size"] = 1 << 20;
  config["vocab_size"] = 1 << 24;  // 64 TiB of embeddings, which no machine has
  tiny_.files().write("large/config.json", config.dump());
  GenerationRequest asked = request("Hello");
  asked.model = folder.string();
  EXPECT_THAT(error_of(asked, ErrorKind::kModel), HasSubstr("model.embed_tokens.weight"));
}

TEST_F(RunGenerationTest, a_raw_prompt_is_the_whole_text_after_bos) {
  GenerationRequest raw = request("<start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n");
  raw.raw = true;
  const auto wanted = run(request("Hello"))[0].output_ids;
  EXPECT_EQ(run(raw)[0].output_ids, wanted);
  raw.prompt = "<bos>" + *raw.prompt;  // not doubled
  EXPECT_EQ(run(raw)[0].output_ids, wanted);
}

TEST_F(RunGenerationTest, control_tokens_in_a_prompt_are_text_unless_asked_for) {
  GenerationRequest spelled = request("a<end_of_turn>b");
  const auto literal = run(spelled)[0].output_ids;
  spelled.parse_control_tokens = true;
  EXPECT_NE(run(spelled)[0].output_ids, literal);
}

TEST_F(RunGenerationTest, generation_stops_where_generation_config_says_and_the_text_is_without_the_stop_token) {
  GenerationRequest asked = request("Hello");
  asked.ignore_eos = true;
  asked.max_new_tokens = 12;
  const GeneratedRow all = run(asked)[0];
  ASSERT_EQ(all.output_ids.size(), 12u);
  const int64_t stop = all.output_ids[3];
  tiny_.files().write("base/generation_config.json", json({{"eos_token_id", {1, stop}}}).dump());
  asked.ignore_eos = false;
  const GeneratedRow stopped = run(asked)[0];
  const auto first = std::find(all.output_ids.begin(), all.output_ids.end(), stop);
  EXPECT_EQ(stopped.output_ids, std::vector<int64_t>(all.output_ids.begin(), first + 1));
  EXPECT_EQ(stopped.text,
            Tokenizer::load(tiny_.base_model())->decode({stopped.output_ids.begin(), stopped.output_ids.end() - 1}));
}

// As transformers does: after ids or a raw text only what generation_config.json says ends the answer.
TEST_F(RunGenerationTest, the_turns_end_stops_an_answer_in_the_template_and_no_other) {
  tiny_.files().write("base/generation_config.json", R"({"eos_token_id": 1})");
  const int64_t end = Tokenizer::load(tiny_.base_model())->end_of_turn_id();
  GenerationRequest chat = request("Hello"),
                    raw = request("<start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n");
  raw.raw = true;
  chat.sampling.temperature = raw.sampling.temperature = 10;  // about any piece
  chat.max_new_tokens = raw.max_new_tokens = 150;
  bool seen = false;
  for (uint64_t seed = 0; seed < 40 && !seen; ++seed) {
    chat.sampling.seed = raw.sampling.seed = seed;
    const std::vector<int64_t> all = run(raw)[0].output_ids;
    const auto at = std::find(all.begin(), all.end(), end);
    seen = at != all.end() && at + 1 != all.end();
    if (!seen) continue;
    EXPECT_EQ(run(chat)[0].output_ids, std::vector<int64_t>(all.begin(), at + 1));
  }
  EXPECT_TRUE(seen);
}

TEST_F(RunGenerationTest, a_tokenizer_with_more_pieces_than_the_model_has_rows_is_named_and_crashes_nothing) {
  json config = json::parse(read_file(tiny_.base_model() / "config.json"));
  GemmaConfig smaller = load_gemma_config(tiny_.base_model());
  smaller.vocab_size = 260;
  const auto pieces = Tokenizer::load(tiny_.base_model())->size();
  ASSERT_GT(pieces, smaller.vocab_size);
  const std::filesystem::path folder = tiny_.files() / "smaller";
  std::filesystem::create_directory(folder);
  config["vocab_size"] = smaller.vocab_size;
  tiny_.files().write("smaller/config.json", config.dump());
  std::filesystem::copy_file(tiny_.base_model() / "tokenizer.model", folder / "tokenizer.model");
  std::vector<TensorSource> tensors;
  for (const NamedShape& tensor : text_tensors(smaller)) {
    int64_t count = 1;
    for (const int64_t size : tensor.shape) count *= size;
    const auto values = std::make_shared<std::vector<float>>(count, 0.01f);
    tensors.push_back(
        {tensor.name, TensorDtype::kF32, tensor.shape, [values]() -> const void* { return values->data(); }});
  }
  write_safetensors(real_file_system(), folder / "model.safetensors", tensors);
  GenerationRequest asked = request("Hello wonderful world");
  asked.model = folder.string();
  EXPECT_THAT(error_of(asked, ErrorKind::kModel), HasSubstr("and the model's embedding has 260 rows"));
}

TEST_F(RunGenerationTest, an_answer_beyond_the_models_positions_is_marked) {
  json config = json::parse(read_file(tiny_.base_model() / "config.json"));
  config["max_position_embeddings"] = 64;
  tiny_.files().write("base/config.json", config.dump());
  GenerationRequest asked = request("Hello");
  asked.ignore_eos = true;
  EXPECT_FALSE(run(asked)[0].beyond_maximum);
  asked.max_new_tokens = 64;
  EXPECT_TRUE(run(asked)[0].beyond_maximum);
}

TEST_F(RunGenerationTest, the_same_seed_gives_the_same_sample_whatever_row_came_before) {
  GenerationRequest asked = file_request("{\"prompt\": \"one\"}\n{\"prompt\": \"two\"}\n");
  asked.sampling = {.temperature = 2.0, .seed = 5};
  asked.max_new_tokens = 12;
  const auto both = run(asked);
  EXPECT_EQ(run(asked)[1].output_ids, both[1].output_ids);
  GenerationRequest second = request("two");
  second.sampling = {.temperature = 2.0, .seed = 6};
  second.max_new_tokens = 12;
  EXPECT_EQ(run(second)[0].output_ids, both[1].output_ids);
  EXPECT_NE(both[0].output_ids, both[1].output_ids);
}

TEST_F(RunGenerationTest, rows_that_cannot_be_used_are_named_by_line_before_anything_is_generated) {
  EXPECT_THAT(error_of(request(""), ErrorKind::kUsage), HasSubstr("--prompt: expected text, found none"));
  const std::string good = "{\"prompt\": \"x\"}\n";
  EXPECT_THAT(error_of(file_request(good + "{\"prompt\": 5}\n"), ErrorKind::kData),
              HasSubstr("prompts.jsonl:2:12: prompt: expected a non-empty string, found the number 5"));
  EXPECT_THAT(error_of(file_request(good + "[{\"prompt\": \"x\"}]\n"), ErrorKind::kData),
              HasSubstr("prompts.jsonl:2:1: row: expected a JSON object, found an array"));
  EXPECT_THAT(error_of(file_request(good + "nonsense\n"), ErrorKind::kData),
              HasSubstr("prompts.jsonl:2:1: row: expected a JSON value"));
  EXPECT_THAT(error_of(file_request("{\"id\": \"a\"}\n"), ErrorKind::kData),
              HasSubstr("prompts.jsonl:1:1: row: expected either prompt or input_ids, found none of them"));
  EXPECT_THAT(error_of(file_request("{\"input_ids\": [2, 512]}\n"), ErrorKind::kData),
              HasSubstr("prompts.jsonl:1:19: input_ids[1]: expected an id of the vocabulary, 0 to 511, found the "
                        "number 512"));
  EXPECT_THAT(error_of(file_request("{\"input_ids\": []}\n"), ErrorKind::kData),
              HasSubstr("prompts.jsonl:1:15: input_ids: expected at least one token id, found an empty array"));
  GenerationRequest absent = request("");
  absent.prompt.reset();
  absent.input = tiny_.files() / "absent.jsonl";
  EXPECT_THAT(error_of(absent, ErrorKind::kData), HasSubstr("not found"));
  absent.input.reset();
  EXPECT_THAT(error_of(absent, ErrorKind::kUsage), HasSubstr("required"));
}

TEST_F(RunGenerationTest, rows_are_written_with_their_fields_in_order) {
  EXPECT_EQ(to_json(GeneratedRow{"a", {5, 6}, "h\u00e9 \"q\""}),
            "{\"id\":\"a\",\"output_ids\":[5,6],\"text\":\"h\u00e9 \\\"q\\\"\"}");
  EXPECT_THAT(to_json(GeneratedRow{.id = "caf\xe9:1", .output_ids = {}, .text = {}}), HasSubstr("\"caf\ufffd:1\""))
      << "the place of a row in a file whose name is not UTF-8";
}

}  // namespace
}  // namespace gemma_sft
