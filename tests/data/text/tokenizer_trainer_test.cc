#include "data/text/tokenizer_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "configs/error.h"
#include "data/text/sentencepiece_model.h"
#include "tests/data/text/tiny_tokenizer.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;
using testing::Not;

const TokenizerTraining kTiny{.vocab_size = 512, .unused_pieces = 8, .html_tags = true};

template <typename Call>
std::string error_of(ErrorKind kind, const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  return "no error";
}

// The fixture was made by sentencepiece's Python package with Gemma's settings written out.
TEST(TokenizerTrainer, MakesThePiecesOfTheReference) {
  const SentencePieceModel ours =
      parse_sentencepiece_model(train_tokenizer(std::vector{fixture_path("tiny_corpus.txt")}, kTiny), "ours");
  const SentencePieceModel theirs = parse_sentencepiece_model(read_fixture("tiny_tokenizer.model"), "theirs");
  ASSERT_EQ(ours.pieces.size(), theirs.pieces.size());
  for (size_t i = 0; i < ours.pieces.size(); ++i) {
    EXPECT_EQ(ours.pieces[i].text, theirs.pieces[i].text) << i;
    EXPECT_EQ(ours.pieces[i].score, theirs.pieces[i].score) << i;
    EXPECT_EQ(ours.pieces[i].type, theirs.pieces[i].type) << i;
  }
}

TEST(TokenizerTrainer, GivesTheSameBytesEveryTimeAndNamesNoPath) {
  const std::string bytes = train_tokenizer(std::vector{fixture_path("tiny_corpus.txt")}, kTiny);
  EXPECT_EQ(bytes, train_tokenizer(std::vector{read_fixture("tiny_corpus.txt")}, kTiny));
  EXPECT_THAT(bytes, Not(HasSubstr("tiny_corpus")));
}

TEST(TokenizerTrainer, LaysOutTheSpecialPiecesAsGemmaDoes) {
  const SentencePieceModel model = parse_sentencepiece_model(
      train_tokenizer(std::vector{read_fixture("tiny_corpus.txt")}, {.vocab_size = 420, .unused_pieces = 2}), "m");
  const auto text = [&](size_t id) { return model.pieces.at(id).text; };
  EXPECT_EQ(text(0), "<pad>");
  EXPECT_EQ(text(1), "<eos>");
  EXPECT_EQ(text(2), "<bos>");
  EXPECT_EQ(text(3), "<unk>");
  EXPECT_EQ(text(4), "<mask>");
  EXPECT_EQ(text(5), "[multimodal]");
  EXPECT_EQ(text(6), "<unused0>");
  EXPECT_EQ(text(7), "<unused1>");
  EXPECT_EQ(text(8), "<start_of_turn>");
  EXPECT_EQ(text(9), "<end_of_turn>");
  EXPECT_EQ(text(10), "\n");
  EXPECT_EQ(text(40), std::string(31, '\n'));
  EXPECT_EQ(text(41), "\xe2\x96\x81\xe2\x96\x81");
  EXPECT_EQ(text(70).size(), 31u * 3);
  EXPECT_EQ(text(71), "<0x00>");
  EXPECT_EQ(text(326), "<0xFF>");
  EXPECT_EQ(model.pieces.at(327).type, PieceType::kNormal);
  EXPECT_EQ(model.pieces.size(), 420u);
  for (const Piece& piece : model.pieces) {
    const bool has_digit = piece.text.find_first_of("0123456789") != std::string::npos;
    if (piece.type == PieceType::kNormal && has_digit) {
      EXPECT_EQ(piece.text.size(), 1u) << piece.text;
    }
  }
}

TEST(TokenizerTrainer, TakesEveryLineHoweverLongOrOdd) {
  // The library by itself passes over lines of more than 4,192 bytes and lines with U+2585.
  std::string long_line;
  for (int i = 0; i < 2'000; ++i) long_line += "quetzal ";
  const SentencePieceModel model = parse_sentencepiece_model(
      train_tokenizer(
          std::vector<std::string>{read_fixture("tiny_corpus.txt") + long_line + "\nxylophone\xe2\x96\x85 xylophone"},
          {.vocab_size = 440}),
      "m");
  const auto has = [&](const std::string& text) {
    return std::any_of(model.pieces.begin(), model.pieces.end(),
                       [&](const Piece& piece) { return piece.text == text; });
  };
  EXPECT_TRUE(has("\xe2\x96\x81quetzal"));
  EXPECT_TRUE(has("x"));
}

TEST(TokenizerTrainer, RefusesWhatCannotBe) {
  const std::vector<std::string> corpus = {read_fixture("tiny_corpus.txt")};
  EXPECT_THAT(error_of(ErrorKind::kUsage, [&] { train_tokenizer(corpus, {.vocab_size = 100'000}); }),
              HasSubstr("a vocabulary of 100000 pieces: the corpus yields only "));
  EXPECT_THAT(error_of(ErrorKind::kUsage, [&] { train_tokenizer(corpus, {.vocab_size = 333}); }),
              HasSubstr("a vocabulary of 333 pieces: expected more than 333"));
  EXPECT_THAT(error_of(ErrorKind::kUsage, [&] { train_tokenizer(corpus, {.vocab_size = 340}); }),
              HasSubstr("training a tokenizer of 340 pieces failed"));
  EXPECT_THAT(error_of(ErrorKind::kData, [&] { train_tokenizer(std::vector<std::string>{"\n\n"}, {}); }),
              HasSubstr("holds no text"));
  EXPECT_THAT(error_of(ErrorKind::kData,
                       [&] {
                         train_tokenizer(std::vector<std::string>{"a", "b\xff"}, {});
                       }),
              HasSubstr("text 2 of the corpus: expected UTF-8 at byte 1, found the byte 0xff"));
  EXPECT_THAT(
      error_of(ErrorKind::kData, [&] { train_tokenizer(std::vector<std::string>{std::string(10'001, 'a')}, {}); }),
      HasSubstr("a word of more than 10000 bytes"));
}

}  // namespace
}  // namespace gemma_sft
