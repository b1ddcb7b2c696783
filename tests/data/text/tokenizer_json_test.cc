#include "data/text/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>

#include "tests/data/text/tiny_tokenizer.h"

// What transformers makes of these files is measured by tests/compat/tokenizer_check.py: with transformers 5.23.0 its
// ids are those of encode_parsing_control_tokens on all of its texts, also on runs of spaces past the longest piece and
// beside U+2581, where the tokenizer.json that is made of a tokenizer.model alone differs (tokenizer_test.cc lists
// those).

namespace gemma_sft {
namespace {

const SentencePieceModel& model() {
  static const SentencePieceModel tiny = parse_sentencepiece_model(read_fixture("tiny_tokenizer.model"), "tiny");
  return tiny;
}

const nlohmann::json& tokenizer_json() {
  static const nlohmann::json json = nlohmann::json::parse(make_tokenizer_json(model()));
  return json;
}

TEST(TokenizerJson, HoldsEveryPieceUnderItsId) {
  const auto& vocab = tokenizer_json()["model"]["vocab"];
  ASSERT_EQ(vocab.size(), model().pieces.size());
  for (size_t id = 0; id < model().pieces.size(); ++id) EXPECT_EQ(vocab[model().pieces[id].text], id);
}

TEST(TokenizerJson, AddsTokensForControlAndUserDefinedPieces) {
  std::set<std::string> special;
  std::set<std::string> normalized;
  size_t expected = 0;
  for (const Piece& piece : model().pieces) {
    expected +=
        piece.type == PieceType::kControl || piece.type == PieceType::kUnknown || piece.type == PieceType::kUserDefined;
  }
  const auto& added = tokenizer_json()["added_tokens"];
  EXPECT_EQ(added.size(), expected);
  for (const auto& token : added) {
    EXPECT_EQ(token["content"], model().pieces.at(token["id"].get<size_t>()).text);
    if (token["special"]) special.insert(token["content"]);
    if (token["normalized"]) normalized.insert(token["content"]);
  }
  EXPECT_EQ(special, (std::set<std::string>{"<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"}));
  EXPECT_EQ(normalized.size(), 30u);  // runs of 2 to 31 spaces
  EXPECT_TRUE(normalized.contains("\xe2\x96\x81\xe2\x96\x81"));
}

TEST(TokenizerJson, MergesMakePiecesBestScoreFirst) {
  float last = 1;
  std::set<std::string> made;
  for (const auto& merge : tokenizer_json()["model"]["merges"]) {
    const std::string text = merge[0].get<std::string>() + merge[1].get<std::string>();
    const auto& piece = model().pieces.at(tokenizer_json()["model"]["vocab"].at(text).get<size_t>());
    EXPECT_EQ(piece.type, PieceType::kNormal);
    EXPECT_LE(piece.score, last);
    last = piece.score;
    made.insert(text);
  }
  for (const Piece& piece : model().pieces) {
    const auto characters =
        std::count_if(piece.text.begin(), piece.text.end(), [](char c) { return (c & 0xc0) != 0x80; });
    if (piece.type == PieceType::kNormal) {
      EXPECT_EQ(made.contains(piece.text), characters > 1) << piece.text;
    }
  }
}

TEST(TokenizerJson, AppliesGemmasSettings) {
  const auto& json = tokenizer_json();
  EXPECT_EQ(json["model"]["type"], "BPE");
  EXPECT_EQ(json["model"]["byte_fallback"], true);
  EXPECT_EQ(json["model"]["fuse_unk"], true);
  EXPECT_EQ(json["normalizer"]["content"], "\xe2\x96\x81");
  EXPECT_EQ(json["post_processor"]["special_tokens"]["<bos>"]["ids"], nlohmann::json{2});
}

TEST(TokenizerConfigJson, NamesTheSpecialTokensAndCarriesTheTemplate) {
  const auto json = nlohmann::json::parse(make_tokenizer_config_json(model()));
  EXPECT_EQ(json["tokenizer_class"], "GemmaTokenizer");
  EXPECT_EQ(json["bos_token"], "<bos>");
  EXPECT_EQ(json["eos_token"], "<eos>");
  EXPECT_EQ(json["pad_token"], "<pad>");
  EXPECT_EQ(json["unk_token"], "<unk>");
  EXPECT_EQ(json["mask_token"], "<mask>");
  EXPECT_EQ(json["add_bos_token"], true);
  EXPECT_EQ(json["chat_template"], gemma_jinja_template());
  EXPECT_FALSE(json.contains("additional_special_tokens"));  // it would replace the user-defined pieces
}

}  // namespace
}  // namespace gemma_sft
