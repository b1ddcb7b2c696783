#include "model/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "data/text/tokenizer.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ModelFolder, WithDtypeChangesTheDtypeAndNoOtherByte) {
  EXPECT_EQ(
      with_dtype("{\n \"torch_dtype\":\"float32\" ,\"x\": [\"dtype\"],\n\"dtype\": \"float32\",\n\t\"text_config\": "
                 "{\"dtype\": \"float32\"}, \"vision_config\": {\"dtype\": \"float32\"}}\n",
                 ModelDtype::kBf16),
      "{\n \"torch_dtype\":\"bfloat16\" ,\"x\": [\"dtype\"],\n\"dtype\": \"bfloat16\",\n\t\"text_config\": "
      "{\"dtype\": \"bfloat16\"}, \"vision_config\": {\"dtype\": \"float32\"}}\n");
  EXPECT_EQ(with_dtype("{\"a\": 1}", ModelDtype::kFp16), "{\"a\": 1}");
}

TEST(ModelFolder, TokenizerFilesAreCopiedByteForByteAndNothingElse) {
  const TempDir dir;
  fs::create_directory(dir / "to");
  dir.write("from/tokenizer.model", std::string("\0\xff\r\n", 4));
  dir.write("from/chat_template.jinja", "{{ bos_token }}");
  dir.write("from/preprocessor_config.json", "{}");
  dir.write("from/model.safetensors", "x");
  dir.write("from/README.md", "x");
  const auto digests = copy_tokenizer_files(real_file_system(), dir / "from", dir / "to");
  EXPECT_THAT(dir.list(), ::testing::IsSupersetOf(
                              {"to/", "to/chat_template.jinja", "to/preprocessor_config.json", "to/tokenizer.model"}));
  EXPECT_EQ(digests.size(), 3u);
  EXPECT_EQ(digests.at("tokenizer.model"), sha256_hex(std::string("\0\xff\r\n", 4)));
  EXPECT_EQ(read_file(dir / "to/tokenizer.model"), std::string("\0\xff\r\n", 4));
  EXPECT_FALSE(fs::exists(dir / "to/README.md"));
}

TEST(ModelFolder, ANewGenerationConfigStopsAtTheTurnsEndToo) {
  const TempDir dir;
  for (const std::string name : {"tokenizer.model", "tokenizer.json"}) {
    fs::create_directory(dir / name);
    const fs::path tokenizer = fs::path(GEMMA_SFT_SOURCE_DIR) / "tests/data/fixtures" / ("tiny_" + name);
    fs::copy_file(tokenizer, dir / name / name);
    const int32_t end = Tokenizer::load(tokenizer)->end_of_turn_id();
    EXPECT_EQ(new_generation_config(dir / name), "{\n  \"bos_token_id\": 2,\n  \"eos_token_id\": [\n    1,\n    " +
                                                     std::to_string(end) + "\n  ],\n  \"pad_token_id\": 0\n}\n");
  }
}

TEST(ModelFolder, AGenerationConfigGetsTheTurnsEndAndKeepsAllElse) {
  const TempDir dir;
  const fs::path tokenizer = fs::path(GEMMA_SFT_SOURCE_DIR) / "tests/data/fixtures/tiny_tokenizer.model";
  const std::string end = std::to_string(Tokenizer::load(tokenizer)->end_of_turn_id());
  const std::string one = "{\"do_sample\": true, \"eos_token_id\": 1 , \"top_k\": 64}\n";
  EXPECT_EQ(with_end_of_turn(one, dir.path()), one);  // there is no tokenizer to ask
  fs::copy_file(tokenizer, dir / "tokenizer.model");
  EXPECT_EQ(with_end_of_turn(one, dir.path()),
            "{\"do_sample\": true, \"eos_token_id\": [1, " + end + "] , \"top_k\": 64}\n");
  const std::string both = "{\"eos_token_id\": [ 1," + end + "]}";
  EXPECT_EQ(with_end_of_turn(both, dir.path()), both);
  EXPECT_EQ(with_end_of_turn("{\"eos_token_id\": [7, 8]}", dir.path()), "{\"eos_token_id\": [7, 8, " + end + "]}");
  EXPECT_EQ(with_end_of_turn("{\"eos_token_id\": null}", dir.path()), "{\"eos_token_id\": [1, " + end + "]}");
  EXPECT_EQ(with_end_of_turn("{}", dir.path()), "{\n  \"eos_token_id\": [1, " + end + "]\n}");
  EXPECT_EQ(with_end_of_turn("{\n  \"top_k\": 64\n}", dir.path()),
            "{\n  \"eos_token_id\": [1, " + end + "],\n  \"top_k\": 64\n}");
}

TEST(ModelFolder, StopIdsAreThoseOfTransformers) {
  const TempDir dir;
  EXPECT_THAT(find_stop_ids(dir.path()), ElementsAre());
  dir.write("config.json", R"({"text_config": {"eos_token_id": 5}})");
  EXPECT_THAT(find_stop_ids(dir.path()), ElementsAre(5));
  dir.write("config.json", R"({"eos_token_id": [1, 106], "text_config": {"eos_token_id": 5}})");
  EXPECT_THAT(find_stop_ids(dir.path()), ElementsAre(1, 106));
  dir.write("generation_config.json", R"({"eos_token_id": 1})");
  EXPECT_THAT(find_stop_ids(dir.path()), ElementsAre(1));
  dir.write("generation_config.json", R"({"eos_token_id": "<eos>"})");
  try {
    find_stop_ids(dir.path());
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("generation_config.json: \"eos_token_id\": expected an id or a list of ids, "
                                        "found the string \"<eos>\""));
  }
}

TEST(ModelFolder, TheChatTemplateIsWhereTransformersLooksForIt) {
  const TempDir dir;
  EXPECT_EQ(read_chat_template(dir.path()), "");
  dir.write("chat_template.json", R"({"chat_template": "of a processor"})");
  EXPECT_EQ(read_chat_template(dir.path()), "of a processor");
  dir.write("tokenizer_config.json",
            R"({"chat_template": [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]})");
  EXPECT_EQ(read_chat_template(dir.path()), "b");
  dir.write("tokenizer_config.json", R"({"chat_template": "<start_of_turn>"})");
  EXPECT_EQ(read_chat_template(dir.path()), "<start_of_turn>");
  EXPECT_TRUE(is_gemma_template(read_chat_template(dir.path())));
  dir.write("chat_template.jinja", "<|im_start|>");
  EXPECT_EQ(read_chat_template(dir.path()), "<|im_start|>");
  EXPECT_FALSE(is_gemma_template(read_chat_template(dir.path())));
}

TEST(ModelFolder, WithoutATokenizerTheIdsComeFromTheConfig) {
  const TempDir dir;
  dir.write("config.json", R"({"bos_token_id": 5, "eos_token_id": [7, 8], "pad_token_id": 9})");
  EXPECT_EQ(new_generation_config(dir.path()),
            "{\n  \"bos_token_id\": 5,\n  \"eos_token_id\": [\n    7,\n    8\n  ],\n  \"pad_token_id\": 9\n}\n");
}

}  // namespace
}  // namespace gemma_sft
