#include "data/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "configs/error.h"
#include "data/text/sentencepiece_model.h"
#include "tests/data/text/tiny_tokenizer.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;

std::vector<int32_t> ids_of(const nlohmann::json& value) { return value.get<std::vector<int32_t>>(); }

bool spells_control_of_type_control(const std::string& text) {
  for (const char* token : {"<bos>", "<eos>", "<pad>", "<unk>"}) {
    if (text.find(token) != std::string::npos) return true;
  }
  return false;
}

TEST(Tokenizer, KnowsTheSpecialPieces) {
  const auto tokenizer = tiny_tokenizer();
  EXPECT_EQ(tokenizer->size(), 512);
  EXPECT_EQ(tokenizer->pad_id(), 0);
  EXPECT_EQ(tokenizer->eos_id(), 1);
  EXPECT_EQ(tokenizer->bos_id(), 2);
  EXPECT_EQ(tokenizer->unk_id(), 3);
  EXPECT_EQ(tokenizer->longest_piece_bytes(), 31u * 3);  // the longest run of spaces
  EXPECT_EQ(tokenizer->piece(tokenizer->start_of_turn_id()), "<start_of_turn>");
  EXPECT_EQ(tokenizer->piece(tokenizer->end_of_turn_id()), "<end_of_turn>");
  EXPECT_EQ(tokenizer->find_piece("<unused3>"), 9);
  EXPECT_EQ(tokenizer->find_piece("no such piece"), std::nullopt);
  for (const char* text :
       {"<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "[multimodal]", "<unused0>", "<start_of_turn>"}) {
    EXPECT_TRUE(tokenizer->is_control(*tokenizer->find_piece(text))) << text;
  }
  for (const char* text : {"\n", "\n\n", "<b>", "</table>", "<h1>", "e", "<0x0A>", "\xe2\x96\x81\xe2\x96\x81"}) {
    EXPECT_FALSE(tokenizer->is_control(*tokenizer->find_piece(text))) << text;
  }
  EXPECT_FALSE(tokenizer->is_control(-1));
  EXPECT_FALSE(tokenizer->is_control(512));
  EXPECT_EQ(tokenizer->model_sha256().size(), 64u);
}

TEST(Tokenizer, LiteralIdsAreThoseOfTheVocabularyWithoutControlTokens) {
  const auto tokenizer = tiny_tokenizer();
  int with_control_text = 0;
  for (const auto& item : tiny_tokenizer_cases()["cases"]) {
    if (!item.contains("text")) continue;
    const auto text = item["text"].get<std::string>();
    EXPECT_EQ(tokenizer->encode_literal(text), ids_of(item["literal"])) << text;
    const bool differs = item["literal"] != item["sentencepiece"];
    if (differs) {
      EXPECT_TRUE(tokenizer->spells_control_token(text)) << text;
    }
    with_control_text += differs;
  }
  EXPECT_GT(with_control_text, 100);
}

TEST(Tokenizer, ParsedIdsAreSentencepieceApartFromTokensOfTypeControl) {
  const auto tokenizer = tiny_tokenizer();
  for (const auto& item : tiny_tokenizer_cases()["cases"]) {
    if (!item.contains("text")) continue;
    const auto text = item["text"].get<std::string>();
    if (spells_control_of_type_control(text)) continue;
    EXPECT_EQ(tokenizer->encode_parsing_control_tokens(text), ids_of(item["sentencepiece"])) << text;
  }
}

TEST(Tokenizer, ParsedIdsAreThoseOfTransformersButForTheListedTexts) {
  // transformers has no piece for a run of more than 31 spaces and cuts it by its merges; sentencepiece takes the
  // longest piece first. Beside U+2581 in the text, which both read as a space, transformers does not join runs across
  // it.
  const std::set<std::string> known = {std::string(32, ' '), std::string(33, ' '), std::string(64, ' '),
                                       "x" + std::string(40, ' ') + "y", "\xe2\x96\x81\xe2\x96\x81 x"};
  const auto tokenizer = tiny_tokenizer();
  std::set<std::string> differing;
  for (const auto& item : tiny_tokenizer_cases()["cases"]) {
    if (!item.contains("text")) continue;
    const auto text = item["text"].get<std::string>();
    if (tokenizer->encode_parsing_control_tokens(text) != ids_of(item["transformers"])) differing.insert(text);
  }
  EXPECT_EQ(differing, known);
}

TEST(Tokenizer, DecodingLiteralIdsGivesTheTextBackAndNeverAControlToken) {
  const auto tokenizer = tiny_tokenizer();
  const std::vector<std::string> parts = {"<start_of_turn>",
                                          "<end_of_turn>",
                                          "<bos>",
                                          "<eos>",
                                          "<pad>",
                                          "<unk>",
                                          "<mask>",
                                          "[multimodal]",
                                          "<unused0>",
                                          "<unused7>",
                                          "<unused8>",
                                          "<",
                                          ">",
                                          "[",
                                          "]",
                                          "start_of_turn>",
                                          "<start_of_",
                                          "turn",
                                          "<0x41>",
                                          "<b>",
                                          "</b>",
                                          " ",
                                          "   ",
                                          "\n",
                                          "\n\n\n",
                                          "\t",
                                          "\r",
                                          "a",
                                          "the",
                                          "\xc3\xa9",
                                          "\xe6\x97\xa5",
                                          "\xf0\x9f\x98\x80",
                                          "\xe2\x80\x8b",
                                          "\xc2\xa0",
                                          "\xef\xbf\xbd",
                                          std::string(1, '\0'),
                                          "\x7f",
                                          "1",
                                          "42"};
  std::mt19937 random(11);  // NOLINT: the same strings every time
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (size_t n = random() % 24; n > 0; --n) text += parts[random() % parts.size()];
    const std::vector<int32_t> ids = tokenizer->encode_literal(text);
    ASSERT_EQ(tokenizer->decode(ids), text);
    ASSERT_TRUE(std::none_of(ids.begin(), ids.end(), [&](int32_t id) { return tokenizer->is_control(id); })) << text;
    // Parsing gives the same text and takes every control token that is spelled.
    const std::vector<int32_t> parsed = tokenizer->encode_parsing_control_tokens(text);
    ASSERT_EQ(tokenizer->decode(parsed), text);
    const bool has_control =
        std::any_of(parsed.begin(), parsed.end(), [&](int32_t id) { return tokenizer->is_control(id); });
    ASSERT_EQ(has_control, tokenizer->spells_control_token(text)) << text;
    if (!has_control) {
      ASSERT_EQ(parsed, ids) << text;
    }
  }
}

TEST(Tokenizer, ParsesControlTokensWithoutAddingAny) {
  const auto tokenizer = tiny_tokenizer();
  const std::vector<int32_t> expected = {2, 2, 1, 0, 3, 9, tokenizer->start_of_turn_id()};
  EXPECT_EQ(tokenizer->encode_parsing_control_tokens("<bos><bos><eos><pad><unk><unused3><start_of_turn>"), expected);
  EXPECT_TRUE(tokenizer->encode_parsing_control_tokens("").empty());
  EXPECT_TRUE(tokenizer->encode_literal("").empty());
}

TEST(Tokenizer, DecodesBytesThatAreNoCharacterAsReplacementCharacters) {
  const auto tokenizer = tiny_tokenizer();
  const int32_t first_byte = *tokenizer->find_piece("<0x00>");
  EXPECT_EQ(tokenizer->decode({first_byte + 0xe2, first_byte + 0x82}), "\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(tokenizer->decode({first_byte + 0xe2, first_byte + 0x82, first_byte + 0xac}), "\xe2\x82\xac");
  EXPECT_EQ(tokenizer->decode({first_byte + 0xff, *tokenizer->find_piece("e")}),
            "\xef\xbf\xbd"
            "e");
  EXPECT_EQ(tokenizer->decode({tokenizer->bos_id(), *tokenizer->find_piece("e"), tokenizer->unk_id()}), "<bos>e<unk>");
}

TEST(Tokenizer, IdsPastTheVocabularyAreNothingAndNegativeOnesAnError) {
  const auto tokenizer = tiny_tokenizer();
  EXPECT_EQ(tokenizer->decode({512, *tokenizer->find_piece("e"), 262'144}), "e");
  EXPECT_EQ(tokenizer->piece(512), "");
  EXPECT_THROW(tokenizer->decode({-1}), Error);
  EXPECT_THROW(tokenizer->piece(-1), Error);
}

// Long texts are tokenised in stretches. Short ones are not: a long text must have the ids of its lines one after the
// other.
TEST(Tokenizer, CutsLongTextsWithoutChangingTheirIds) {
  const auto tokenizer = tiny_tokenizer();
  std::mt19937 random(5);  // NOLINT
  const std::vector<std::string> parts = {"the",
                                          "sum",
                                          " ",
                                          "  ",
                                          "    ",
                                          "\xe2\x96\x81",
                                          "<b>",
                                          "42",
                                          "\xc3\xa9",
                                          "\xf0\x9f\x98\x80",
                                          "<start_of_turn>",
                                          "\t",
                                          ".",
                                          " of the",
                                          "   a"};
  for (const size_t longest_line : {200u, 60'000u}) {  // cut at newlines; cut at spaces
    std::string text;
    std::vector<int32_t> expected;
    const auto add = [&](const std::string& part) {
      ASSERT_LT(part.size(), 64u << 10);
      text += part;
      const auto ids = tokenizer->encode_literal(part);
      expected.insert(expected.end(), ids.begin(), ids.end());
    };
    while (text.size() < 500'000) {
      std::string line;
      while (line.size() + 20 < longest_line) line += parts[random() % parts.size()];
      add("x" + line);
      add(std::string(1 + random() % 31, '\n'));
    }
    EXPECT_EQ(tokenizer->encode_literal(text + "<bos>").size(),
              expected.size() + tokenizer->encode_literal("<bos>").size());
    EXPECT_EQ(tokenizer->encode_literal(text), expected);
  }
}

TEST(Tokenizer, TokenisesOneLongWordAndOneLongLine) {
  const auto tokenizer = tiny_tokenizer();
  std::string word(200'000, 'a');
  EXPECT_EQ(tokenizer->decode(tokenizer->encode_literal(word)), word);
  std::string line;
  for (int i = 0; i < 30'000; ++i) line += "the sum ";
  EXPECT_EQ(tokenizer->decode(tokenizer->encode_literal(line)), line);
}

TEST(Tokenizer, IsSafeToShareBetweenThreads) {
  const auto tokenizer = Tokenizer::load(fixture_path("tiny_tokenizer.model"));
  const std::string text = "a <start_of_turn> of the sum";  // needs the processor that is made when first needed
  const std::vector<int32_t> expected = tiny_tokenizer()->encode_literal(text);
  std::vector<int> failures(4, 0);
  std::vector<std::jthread> threads;
  for (int& failed : failures) {
    threads.emplace_back([&failed, &tokenizer, &text, &expected] {
      for (int i = 0; i < 200; ++i) failed += tokenizer->encode_literal(text) != expected;
    });
  }
  threads.clear();
  EXPECT_EQ(failures, std::vector<int>(4, 0));
}

class TokenizerFile : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("tokenizer_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
  }

  std::string error_of_loading() {
    try {
      Tokenizer::load(folder_);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kModel);
      return error.what();
    }
    return "no error";
  }

  static SentencePieceModel tiny_model() {
    return parse_sentencepiece_model(read_fixture("tiny_tokenizer.model"), "tiny_tokenizer.model");
  }

  std::string error_without(const std::string& piece) {
    SentencePieceModel model = tiny_model();
    std::erase_if(model.pieces, [&](const Piece& p) { return p.text == piece; });
    write("tokenizer.model", serialize_sentencepiece_model(model));
    return error_of_loading();
  }

  std::filesystem::path folder_;
};

TEST_F(TokenizerFile, AFolderAndTheFileInItAreTheSame) {
  write("tokenizer.model", read_fixture("tiny_tokenizer.model"));
  EXPECT_EQ(Tokenizer::load(folder_)->model_sha256(), tiny_tokenizer()->model_sha256());
}

TEST_F(TokenizerFile, AbsenceNamesTheFileAndTheRemedy) {
  EXPECT_EQ(error_of_loading(), (folder_ / "tokenizer.model").string() +
                                    ": not found, and no tokenizer.json beside it; copy tokenizer.model from the "
                                    "model's repository into the model folder");
  EXPECT_THROW(Tokenizer::load(folder_ / "tokenizer.model"), Error);
}

TEST_F(TokenizerFile, WithoutATokenizerModelIsRebuiltFromTokenizerJson) {
  write("tokenizer.json", read_fixture("tiny_tokenizer.json"));
  EXPECT_EQ(tokenizer_file(folder_), folder_ / "tokenizer.json");
  const auto rebuilt = Tokenizer::load(folder_);
  EXPECT_NE(rebuilt->model_sha256(), tiny_tokenizer()->model_sha256());
  int compared = 0;
  for (const auto& item : tiny_tokenizer_cases()["cases"]) {
    if (!item.contains("text")) continue;
    const auto text = item["text"].get<std::string>();
    EXPECT_EQ(rebuilt->encode_literal(text), ids_of(item["literal"])) << text;
    if (!spells_control_of_type_control(text)) {
      EXPECT_EQ(rebuilt->encode_parsing_control_tokens(text), ids_of(item["sentencepiece"])) << text;
    }
    ++compared;
  }
  EXPECT_GT(compared, 300);
  EXPECT_EQ(rebuilt->size(), 512);
  EXPECT_EQ(rebuilt->unk_id(), 3);
  // Beside a tokenizer.model nobody reads it.
  write("tokenizer.json", "{}");
  EXPECT_THAT(error_of_loading(), HasSubstr("tokenizer.json:1:1: expected a member model"));
  write("tokenizer.model", read_fixture("tiny_tokenizer.model"));
  EXPECT_EQ(Tokenizer::load(folder_)->model_sha256(), tiny_tokenizer()->model_sha256());
}

TEST_F(TokenizerFile, TokensThatAreAddedBesideATokenizerModelAreRefusedUntilItIsRemoved) {
  const auto added = [](int64_t id, const std::string& text) {
    nlohmann::json document = nlohmann::json::parse(read_fixture("tiny_tokenizer.json"));
    document["added_tokens"].push_back({{"id", id},
                                        {"content", text},
                                        {"single_word", false},
                                        {"lstrip", false},
                                        {"rstrip", false},
                                        {"normalized", false},
                                        {"special", true}});
    return document.dump(1);
  };
  write("tokenizer.model", read_fixture("tiny_tokenizer.model"));
  write("tokenizer.json", added(512, "<image_soft_token>"));  // as Gemma 3's
  EXPECT_EQ(error_of_loading(), "no error");
  write("tokenizer.json", added(512, "<think>"));
  EXPECT_EQ(error_of_loading(), (folder_ / "tokenizer.json").string() +
                                    ": adds 1 tokens, such as \"<think>\", to the 512 pieces of tokenizer.model, which "
                                    "does not know them; remove tokenizer.model, and tokenizer.json is read instead");
  std::filesystem::remove(folder_ / "tokenizer.model");
  const auto tokenizer = Tokenizer::load(folder_);
  EXPECT_EQ(tokenizer->encode_parsing_control_tokens("<think>"), std::vector<int32_t>{512});
  EXPECT_GT(tokenizer->encode_literal("<think>").size(), 1u);  // it is a control token

  std::filesystem::remove(folder_ / "tokenizer.json");
  write("tokenizer.model", read_fixture("tiny_tokenizer.model"));
  write("added_tokens.json", R"({"<image_soft_token>": 512})");
  EXPECT_EQ(error_of_loading(), "no error");
  write("added_tokens.json", R"({"<bos>": 2, "<think>": 512, "<x>": 513})");
  EXPECT_THAT(error_of_loading(), HasSubstr("added_tokens.json: adds 2 tokens, such as \"<think>\", to the 512"));
}

TEST_F(TokenizerFile, PiecesThatTheTemplateNeedsMustBeThere) {
  EXPECT_THAT(error_without("<bos>"), HasSubstr("has no control token <bos>"));
  EXPECT_THAT(error_without("<eos>"), HasSubstr("has no control token <eos>"));
  EXPECT_THAT(error_without("<start_of_turn>"), HasSubstr("has no control token <start_of_turn>"));
  EXPECT_THAT(error_without("<end_of_turn>"), HasSubstr("has no control token <end_of_turn>"));
  EXPECT_EQ(error_without("<pad>"), "no error");
  EXPECT_EQ(error_without("\n"), "no error");  // the byte piece <0x0A> takes its place
}

TEST_F(TokenizerFile, WhatTheLibraryRefusesIsAnErrorOfTheModel) {
  EXPECT_THAT(error_without("<0x41>"), HasSubstr("is not a usable tokenizer"));
  EXPECT_THAT(error_without("<unk>"), HasSubstr("is not a usable tokenizer"));
  SentencePieceModel model = tiny_model();
  model.pieces.push_back(model.pieces.back());
  write("tokenizer.model", serialize_sentencepiece_model(model));
  EXPECT_THAT(error_of_loading(), HasSubstr("is already defined"));
}

TEST_F(TokenizerFile, ANewlineInsideOtherPiecesDoesNotBreakLongTexts) {
  SentencePieceModel model = tiny_model();
  model.pieces.push_back({"x\nx", 0, PieceType::kUserDefined});
  write("tokenizer.model", serialize_sentencepiece_model(model));
  const auto tokenizer = Tokenizer::load(folder_);
  std::string text;
  std::vector<int32_t> expected;
  for (int i = 0; i < 60'000; ++i) {
    text += "x\nx";
    expected.push_back(512);
  }
  EXPECT_EQ(tokenizer->encode_literal(text), expected);
}

TEST_F(TokenizerFile, ASpaceInsideOtherPiecesDoesNotBreakLongTexts) {
  SentencePieceModel model = tiny_model();
  const std::string space = "\xe2\x96\x81";
  model.pieces.push_back({"e" + space, 0, PieceType::kNormal});
  model.pieces.push_back({"e" + space + "e", 0, PieceType::kNormal});
  write("tokenizer.model", serialize_sentencepiece_model(model));
  const auto tokenizer = Tokenizer::load(folder_);
  std::string text;
  std::vector<int32_t> expected;
  for (int i = 0; i < 40'000; ++i) {
    text += "e e\t";
    expected.insert(expected.end(), {513, *tokenizer->find_piece("<0x09>")});
  }
  EXPECT_EQ(tokenizer->encode_literal(text), expected);
}

}  // namespace
}  // namespace gemma_sft
