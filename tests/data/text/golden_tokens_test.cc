// tests/golden/tokens: ids of awkward text, read literally and as transformers reads it, and ids and masks of
// conversations; with the tokenizer that sentencepiece trained, and with the one rebuilt from what transformers saves.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"

namespace gemma_sft {
namespace {

const std::filesystem::path kFolder = std::filesystem::path(GEMMA_SFT_SOURCE_DIR) / "tests/golden/tokens";

class GoldenTokens : public ::testing::TestWithParam<const char*> {
 protected:
  static const nlohmann::json& cases() {
    static const nlohmann::json parsed = nlohmann::json::parse(std::ifstream(kFolder / "cases.json"));
    return parsed;
  }
  std::shared_ptr<const Tokenizer> tokenizer_ = Tokenizer::load(kFolder / GetParam());
};

INSTANTIATE_TEST_SUITE_P(File, GoldenTokens, ::testing::Values("tokenizer.model", "tokenizer.json"),
                         [](const auto& file) { return std::string(file.param).substr(10); });

std::vector<int32_t> ids_of(const nlohmann::json& value) { return value.get<std::vector<int32_t>>(); }

std::string start_of(const std::string& text) { return text.substr(0, 60); }

TEST_P(GoldenTokens, TextReadLiterally) {
  for (const auto& item : cases().at("texts")) {
    const auto text = item.at("text").get<std::string>();
    EXPECT_EQ(tokenizer_->encode_literal(text), ids_of(item.at("literal"))) << start_of(text);
  }
}

TEST_P(GoldenTokens, TextReadAsTransformersReadsIt) {
  size_t long_words = 0, as_transformers = 0, with_control_tokens = 0;
  for (const auto& item : cases().at("texts")) {
    const auto text = item.at("text").get<std::string>();
    EXPECT_EQ(tokenizer_->encode_parsing_control_tokens(text), ids_of(item.at("parsed"))) << start_of(text);
    // Where transformers parts from sentencepiece, which is the truth here, the two must be seen to differ.
    if (item.contains("transformers")) {
      EXPECT_NE(item.at("transformers"), item.at("parsed")) << start_of(text);
    }
    as_transformers += !item.contains("transformers");
    long_words += text.size() >= 10'000;
    with_control_tokens += item.at("parsed") != item.at("literal");
  }
  EXPECT_EQ(as_transformers + 7, cases().at("texts").size());
  EXPECT_GE(long_words, 9u);
  EXPECT_GE(with_control_tokens, 200u);
}

TEST_P(GoldenTokens, DecodingGivesTheTextBack) {
  for (const auto& item : cases().at("texts")) {
    auto text = item.at("text").get<std::string>();
    const std::string decoded = tokenizer_->decode(ids_of(item.at("literal")));
    for (size_t at = text.find("\xe2\x96\x81"); at != std::string::npos; at = text.find("\xe2\x96\x81", at)) {
      text.replace(at, 3, " ");  // U+2581 is how the vocabulary writes a space
    }
    EXPECT_EQ(decoded, text) << start_of(text);
  }
}

TEST_P(GoldenTokens, ConversationsAndTheirMasks) {
  for (const auto& item : cases().at("conversations")) {
    std::vector<Turn> turns;
    for (const auto& turn : item.at("turns")) {
      const auto role = turn[0].get<std::string>();
      turns.push_back({role == "system" ? Role::kSystem : role == "user" ? Role::kUser : Role::kModel, turn[1]});
    }
    const std::vector<Segment> segments = render_for_training(turns);
    for (const auto& [mode, name] :
         {std::pair{ControlTokens::kLiteral, "literal"}, std::pair{ControlTokens::kParse, "parsed"}}) {
      const TokenizedExample example = encode_segments(*tokenizer_, segments, mode);
      EXPECT_EQ(example.input_ids, ids_of(item.at(std::string(name) + "_ids"))) << name << item.at("turns").dump();
      EXPECT_EQ(example.loss_mask, item.at(std::string(name) + "_mask").get<std::vector<uint8_t>>())
          << name << item.at("turns").dump();
    }
  }
}

}  // namespace
}  // namespace gemma_sft
