#include "data/text/sentencepiece_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>

#include "configs/error.h"
#include "tests/data/text/tiny_tokenizer.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;

std::string error_of(const std::string& bytes) {
  try {
    parse_sentencepiece_model(bytes, "m");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModel);
    return error.what();
  }
  return "no error";
}

// Wire format by hand: tag = field << 3 | type, types 0 varint, 2 bytes, 5 four bytes. Lengths below 128.
std::string bytes_field(int field, const std::string& bytes) {
  return std::string{static_cast<char>(field << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}
std::string number_field(int field, int value) {
  std::string tag = field < 16
                        ? std::string{static_cast<char>(field << 3)}
                        : std::string{static_cast<char>((field << 3 & 0x7f) | 0x80), static_cast<char>(field >> 4)};
  return tag + std::string{static_cast<char>(value)};
}
std::string score_field(float score) {
  std::string bytes(4, '\0');
  std::memcpy(bytes.data(), &score, 4);
  return std::string{static_cast<char>(2 << 3 | 5)} + bytes;
}
std::string piece(const std::string& text, float score, int type) {
  return bytes_field(1, bytes_field(1, text) + score_field(score) + number_field(3, type));
}
const std::string kTrainer = bytes_field(2, number_field(3, 2) + number_field(35, 1));
const std::string kNormalizer = bytes_field(3, bytes_field(1, "identity") + number_field(3, 0) + number_field(4, 0));

TEST(SentencePieceModel, ReadsTheLibrarysFileAndWritesOneThatReadsTheSame) {
  const SentencePieceModel model = parse_sentencepiece_model(read_fixture("tiny_tokenizer.model"), "tiny");
  ASSERT_EQ(model.pieces.size(), 512u);
  EXPECT_EQ(model.pieces[0].text, "<pad>");
  EXPECT_EQ(model.pieces[0].type, PieceType::kControl);
  EXPECT_EQ(model.pieces[3].type, PieceType::kUnknown);
  EXPECT_EQ(model.pieces[4].text, "<mask>");
  EXPECT_EQ(model.pieces[4].type, PieceType::kUserDefined);
  const SentencePieceModel again = parse_sentencepiece_model(serialize_sentencepiece_model(model), "again");
  ASSERT_EQ(again.pieces.size(), model.pieces.size());
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    EXPECT_EQ(again.pieces[i].text, model.pieces[i].text);
    EXPECT_EQ(again.pieces[i].score, model.pieces[i].score);
    EXPECT_EQ(again.pieces[i].type, model.pieces[i].type);
  }
}

TEST(SentencePieceModel, ReadsAFileWrittenByHand) {
  const std::string unknown_field = bytes_field(9, "whatever") + number_field(20, 7);
  const SentencePieceModel model = parse_sentencepiece_model(
      piece("ab", -3.5f, 1) + unknown_field + kTrainer + kNormalizer + piece("<0x0A>", 0, 6), "m");
  ASSERT_EQ(model.pieces.size(), 2u);
  EXPECT_EQ(model.pieces[0].text, "ab");
  EXPECT_EQ(model.pieces[0].score, -3.5f);
  EXPECT_EQ(model.pieces[0].type, PieceType::kNormal);
  EXPECT_EQ(model.pieces[1].type, PieceType::kByte);
}

TEST(SentencePieceModel, RefusesWhatIsNotAModel) {
  EXPECT_THAT(error_of(""), HasSubstr("holds no pieces"));
  EXPECT_THAT(error_of("{\"version\": \"1.0\"}"), HasSubstr("is not a sentencepiece model"));
  EXPECT_THAT(error_of("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4241003\n"),
              HasSubstr("is not a sentencepiece model"));
  EXPECT_THAT(error_of(std::string(70 << 20, '\0')), HasSubstr("73400320 bytes, expected at most 67108864"));
  EXPECT_THAT(error_of(std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11)),
              HasSubstr("a field longer than the file"));
  EXPECT_THAT(error_of(std::string(11, '\xff')), HasSubstr("a number of more than 64 bits"));
  EXPECT_THAT(error_of("\x0a"), HasSubstr("it ends inside a number"));
  EXPECT_THAT(error_of(std::string("\x0b", 1)), HasSubstr("an unknown wire type"));
  EXPECT_THAT(error_of(std::string(2, '\0')), HasSubstr("a field number out of range"));
  EXPECT_THAT(error_of(number_field(1, 5)), HasSubstr("has wire type 0, expected 2"));
}

TEST(SentencePieceModel, RefusesAbsurdPieces) {
  const std::string rest = kTrainer + kNormalizer;
  EXPECT_THAT(error_of(piece("", 0, 1) + rest), HasSubstr("piece 0: empty text"));
  EXPECT_THAT(error_of(piece("a", 0, 1) + piece("\xff", 0, 1) + rest), HasSubstr("piece 1: text is not UTF-8"));
  EXPECT_THAT(error_of(piece("a", NAN, 1) + rest), HasSubstr("score is not a finite number"));
  EXPECT_THAT(error_of(piece("a", INFINITY, 1) + rest), HasSubstr("score is not a finite number"));
  EXPECT_THAT(error_of(piece("a", 0, 7) + rest), HasSubstr("type 7, expected 1 to 6"));
  EXPECT_THAT(error_of(piece("a", 0, 0) + rest), HasSubstr("type 0, expected 1 to 6"));
  for (const char* name : {"<0x-1>", "<0xGG>", "<0x100>", "0x41", "<0x4a>", "<0x4"}) {
    EXPECT_THAT(error_of(piece(name, 0, 6) + rest), HasSubstr("expected <0x00> to <0xFF>")) << name;
  }
  SentencePieceModel model;
  model.pieces.push_back({std::string(1025, 'a'), 0, PieceType::kNormal});
  EXPECT_THAT(error_of(serialize_sentencepiece_model(model)), HasSubstr("1025 bytes long, expected at most 1024"));
  model.pieces.assign(SentencePieceModel::kMaxPieces + 1, {"a", 0, PieceType::kNormal});
  EXPECT_THAT(error_of(serialize_sentencepiece_model(model)), HasSubstr("more than 1048576 pieces"));
}

TEST(SentencePieceModel, RefusesSettingsThatAreNotHonoured) {
  const auto trainer = [](int field, int value) {
    return bytes_field(2, number_field(3, 2) + number_field(35, 1) + number_field(field, value));
  };
  const auto normalizer = [](const std::string& more) {
    return bytes_field(3, number_field(3, 0) + number_field(4, 0) + more);
  };
  const std::string a = piece("a", 0, 1);
  EXPECT_EQ(error_of(a + kTrainer + kNormalizer), "no error");
  EXPECT_THAT(error_of(a + trainer(3, 1) + kNormalizer), HasSubstr("m: model_type unigram is not honoured"));
  EXPECT_THAT(error_of(a + kNormalizer), HasSubstr("model_type unigram is not honoured"));  // the format's default
  EXPECT_THAT(error_of(a + trainer(35, 0) + kNormalizer), HasSubstr("byte_fallback: false is not honoured"));
  EXPECT_THAT(error_of(a + trainer(24, 1) + kNormalizer), HasSubstr("treat_whitespace_as_suffix: true"));
  EXPECT_THAT(error_of(a + kTrainer + normalizer(bytes_field(1, "nmt_nfkc") + bytes_field(2, "abc"))),
              HasSubstr("the normalisation \"nmt_nfkc\" is not honoured"));
  EXPECT_THAT(error_of(a + kTrainer + normalizer(number_field(3, 1))), HasSubstr("add_dummy_prefix: true"));
  EXPECT_THAT(error_of(a + kTrainer), HasSubstr("add_dummy_prefix: true"));  // the format's default
  EXPECT_THAT(error_of(a + kTrainer + normalizer(number_field(4, 1))), HasSubstr("remove_extra_whitespaces: true"));
  EXPECT_THAT(error_of(a + kTrainer + normalizer(number_field(5, 0))), HasSubstr("escape_whitespaces: false"));
}

TEST(SentencePieceModel, KnowsControlPieces) {
  const auto is_control = [](const char* text, PieceType type) { return is_control_piece({text, 0, type}); };
  for (const char* text :
       {"<mask>", "<2mass>", "[@BOS@]", "[multimodal]", "<unused0>", "<unused6241>", "<start_of_turn>", "<end_of_turn>",
        "<start_of_image>", "<end_of_image>", "<image_soft_token>", "<|turn>"}) {
    EXPECT_TRUE(is_control(text, PieceType::kUserDefined)) << text;
    EXPECT_FALSE(is_control(text, PieceType::kNormal)) << text;
  }
  EXPECT_TRUE(is_control("anything", PieceType::kControl));
  EXPECT_TRUE(is_control("anything", PieceType::kUnknown));
  for (const char* text :
       {"<b>", "</b>", "<blockquote>", "</h6>", "<table>", "\n\n", "\xe2\x96\x81\xe2\x96\x81", "<>", "[", "word"}) {
    EXPECT_FALSE(is_control(text, PieceType::kUserDefined)) << text;
  }
}

// Every file that differs from a good one in a few bytes is refused or gives a tokenizer that works; nothing crashes.
TEST(SentencePieceModel, SurvivesBrokenFiles) {
  const std::string good = read_fixture("tiny_tokenizer.model");
  const auto path = std::filesystem::path(testing::TempDir()) / "broken_tokenizer.model";
  std::mt19937 random(3);  // NOLINT
  int loaded = 0;
  for (int round = 0; round < 2'000; ++round) {
    std::string bytes = good;
    const auto place = [&] { return random() % bytes.size(); };
    for (size_t n = 1 + random() % 4; n > 0; --n) {
      switch (random() % 5) {
        case 0: bytes[place()] = static_cast<char>(random()); break;
        case 1: bytes.resize(place() + 1); break;
        case 2: bytes.erase(place(), 1 + random() % 20); break;
        case 3: bytes.insert(place(), std::string(1 + random() % 20, static_cast<char>(random()))); break;
        default: bytes[place()] ^= static_cast<char>(1 << random() % 8); break;
      }
      if (bytes.empty()) bytes = "x";
    }
    try {
      parse_sentencepiece_model(bytes, "broken");
      if (round % 4 != 0) continue;  // loading takes longer
      std::ofstream(path, std::ios::binary) << bytes;
      const auto tokenizer = Tokenizer::load(path);
      const std::string text = "The <b>sum</b> of <start_of_turn> 42\n\n   \xe6\x97\xa5 is \xf0\x9f\x98\x80";
      EXPECT_FALSE(tokenizer->encode_literal(text).empty());
      EXPECT_FALSE(tokenizer->encode_parsing_control_tokens(text).empty());
      ++loaded;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kModel) << error.what();
    }
  }
  std::filesystem::remove(path);
  EXPECT_GT(loaded, 20);
}

}  // namespace
}  // namespace gemma_sft
