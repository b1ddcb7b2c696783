#include "data/text/tokenizer_json_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <utility>

#include "configs/error.h"
#include "data/text/tokenizer_json.h"
#include "tests/data/text/tiny_tokenizer.h"

// tiny_tokenizer.json is what transformers 5.23.0 saves of tiny_tokenizer.model, which sentencepiece trained
// (make_tiny_tokenizer.py). tests/compat/run.sh does the same with 262,144 pieces, and compares ids.

namespace gemma_sft {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const SentencePieceModel& original() {
  static const SentencePieceModel model = parse_sentencepiece_model(read_fixture("tiny_tokenizer.model"), "tiny");
  return model;
}

// nlohmann keeps members sorted by name, so that ids come in no order.
json saved() { return json::parse(read_fixture("tiny_tokenizer.json")); }

// The texts whose pieces differ in anything; pieces past those of `expected` by themselves.
void expect_same_pieces(const SentencePieceModel& found, const SentencePieceModel& expected) {
  ASSERT_EQ(found.pieces.size(), expected.pieces.size());
  for (size_t id = 0; id < expected.pieces.size(); ++id) {
    EXPECT_EQ(found.pieces[id].text, expected.pieces[id].text) << id;
    EXPECT_EQ(found.pieces[id].score, expected.pieces[id].score) << id << expected.pieces[id].text;
    EXPECT_EQ(found.pieces[id].type, expected.pieces[id].type) << id << expected.pieces[id].text;
  }
}

std::string error_of(const std::string& text) {
  try {
    read_tokenizer_json(text, "m/tokenizer.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModel) << error.what();
    return error.what();
  }
  return "no error";
}

// The error of the saved file after one change. With an indentation, so that lines say something.
std::string error_after(const std::function<void(json&)>& change) {
  json document = saved();
  change(document);
  return error_of(document.dump(1));
}

json& added(json& document, const std::string& text) {
  for (json& token : document["added_tokens"]) {
    if (token["content"] == text) return token;
  }
  throw std::logic_error("no added token " + text);
}

json new_token(int64_t id, const std::string& text, bool special) {
  return {{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

TEST(TokenizerJsonReader, GivesBackEveryPieceScoreAndTypeOfTheOriginal) {
  expect_same_pieces(read_tokenizer_json(read_fixture("tiny_tokenizer.json"), "saved"), original());
}

TEST(TokenizerJsonReader, ReadsWhatWeWrite) {
  expect_same_pieces(read_tokenizer_json(make_tokenizer_json(original()), "written"), original());
}

TEST(TokenizerJsonReader, ReadsPairsInTheFormThatTokenizersWroteUntilItsVersion020) {
  json document = saved();
  for (json& merge : document["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  expect_same_pieces(read_tokenizer_json(document.dump(), "old"), original());
  EXPECT_EQ(document["model"]["merges"][0], "\n \n");
}

TEST(TokenizerJsonReader, HonoursTheSpellingsThatMeanTheSame) {
  json document = saved();
  document["pre_tokenizer"] = nullptr;
  document["post_processor"] = nullptr;
  document["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers", {{{"type", "Replace"}, {"pattern", {{"Regex", " "}}}, {"content", "\u2581"}}}}};
  document["truncation"] = {{"direction", "Right"}, {"max_length", 5}, {"strategy", "LongestFirst"}, {"stride", 0}};
  document["padding"] = {{"strategy", "BatchLongest"}, {"pad_id", 0}};
  document["model"]["dropout"] = 0.0;
  document["model"]["end_of_word_suffix"] = "";
  document["model"]["continuing_subword_prefix"] = "";
  document["model"]["fuse_unk"] = false;
  expect_same_pieces(read_tokenizer_json(document.dump(), "same"), original());
}

// With scores in the order of the pairs, whatever the ids.
TEST(TokenizerJsonReader, TakesScoresFromTheOrderOfPairs) {
  SentencePieceModel shuffled = original();
  std::mt19937 random(4);  // NOLINT
  const auto words = std::find_if(shuffled.pieces.begin(), shuffled.pieces.end(),
                                  [](const Piece& piece) { return piece.type == PieceType::kNormal; });
  std::shuffle(words, shuffled.pieces.end(), random);
  const SentencePieceModel found = read_tokenizer_json(make_tokenizer_json(shuffled), "shuffled");
  ASSERT_EQ(found.pieces.size(), shuffled.pieces.size());
  for (size_t id = 0; id < found.pieces.size(); ++id) {
    EXPECT_EQ(found.pieces[id].text, shuffled.pieces[id].text);
    // Nothing joins single characters, so that they have no rank.
    const bool is_joined = found.pieces[id].type == PieceType::kNormal && found.pieces[id].text.size() > 3;
    if (is_joined) {
      EXPECT_EQ(found.pieces[id].score, shuffled.pieces[id].score) << found.pieces[id].text;
    }
  }
}

TEST(TokenizerJsonReader, GivesEveryPieceAScoreOfItsOwn) {
  std::set<float> scores;
  size_t normal = 0;
  for (const Piece& piece : read_tokenizer_json(read_fixture("tiny_tokenizer.json"), "saved").pieces) {
    if (piece.type == PieceType::kNormal) {
      scores.insert(piece.score);
      ++normal;
    } else {
      EXPECT_EQ(piece.score, 0) << piece.text;
    }
  }
  EXPECT_EQ(scores.size(), normal);
}

TEST(TokenizerJsonReader, GivesUserDefinedPiecesOnlyWhereTokensAreAdded) {
  // What transformers saves where additional_special_tokens has taken the place of the user-defined pieces: the runs of
  // newlines are made by pairs then.
  json document = saved();
  auto& tokens = document["added_tokens"];
  tokens.erase(std::remove_if(tokens.begin(), tokens.end(),
                              [](const json& token) { return token["content"].get<std::string>()[0] == '\n'; }),
               tokens.end());
  const SentencePieceModel found = read_tokenizer_json(document.dump(), "fewer");
  size_t runs = 0;
  float last = 1;
  for (const Piece& piece : found.pieces) {
    if (piece.text.front() != '\n' || piece.text.size() < 2) continue;
    EXPECT_EQ(piece.type, PieceType::kNormal);
    EXPECT_LT(piece.score, last);
    last = piece.score;
    ++runs;
  }
  EXPECT_EQ(runs, 30u);
}

TEST(TokenizerJsonReader, TreatsAddedTokensByWhatTheyAre) {
  json document = saved();
  added(document, "<start_of_turn>")["special"] = true;
  added(document, "<b>")["special"] = true;   // text, whatever the file says
  added(document, "\n\n")["special"] = true;  // the same
  added(document, "\u2581\u2581")["special"] = true;
  document["added_tokens"].push_back(new_token(512, "foo", false));
  document["added_tokens"].push_back(new_token(513, "secret", true));
  document["added_tokens"].push_back(new_token(514, "<think>", false));
  document["added_tokens"].push_back(new_token(515, "<image_soft_token>", true));
  document["added_tokens"].push_back(new_token(516, "<audio>", true));
  SentencePieceModel expected = original();
  expected.pieces.push_back({"foo", 0, PieceType::kUserDefined});
  expected.pieces.push_back({"secret", 0, PieceType::kControl});  // text must not give it
  expected.pieces.push_back({"<think>", 0, PieceType::kUserDefined});
  expected.pieces.push_back({"<image_soft_token>", 0, PieceType::kUserDefined});  // something follows it
  expected.pieces.push_back({"<audio>", 0, PieceType::kUserDefined});
  expect_same_pieces(read_tokenizer_json(document.dump(), "added"), expected);
}

TEST(TokenizerJsonReader, LeavesOutGemma3sImageToken) {
  json document = saved();
  document["added_tokens"].push_back(new_token(512, "<image_soft_token>", true));
  expect_same_pieces(read_tokenizer_json(document.dump(), "gemma3"), original());
}

TEST(TokenizerJsonReader, RefusesSettingsThatAreNotHonoured) {
  const std::string remedy =
      "is not honoured: put the tokenizer.model of the model that this one was made of beside it";
  const auto refused = [&](const std::string& what, const std::function<void(json&)>& change) {
    const std::string error = error_after(change);
    EXPECT_THAT(error, HasSubstr(what)) << what;
    EXPECT_THAT(error, HasSubstr(remedy)) << what;
    EXPECT_THAT(error, testing::MatchesRegex("m/tokenizer.json:[0-9]+:[0-9]+: .*"));
  };
  const auto model_setting = [&](const std::string& key, const json& value, const std::string& found) {
    refused("model." + key + ": " + found, [&](json& d) { d["model"][key] = value; });
  };
  model_setting("type", "Unigram", "\"Unigram\"");
  model_setting("type", "WordPiece", "\"WordPiece\"");
  refused("model.type: no text", [](json& d) { d["model"].erase("type"); });
  model_setting("dropout", 0.1, "the number 0.1");
  model_setting("continuing_subword_prefix", "##", "the string \"##\"");
  model_setting("end_of_word_suffix", "</w>", "the string \"</w>\"");
  model_setting("byte_fallback", false, "false");
  model_setting("ignore_merges", true, "true");
  refused("the member \"model.new_setting\"", [](json& d) { d["model"]["new_setting"] = 1; });
  refused("the member \"new_setting\"", [](json& d) { d["new_setting"] = 1; });
  for (const json& normalizer :
       {json(nullptr), json{{"type", "NFKC"}}, json{{"type", "Prepend"}, {"prepend", "\u2581"}},
        json{{"type", "Replace"}, {"pattern", {{"String", "  "}}}, {"content", "\u2581"}},
        json{{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "_"}},
        json{{"type", "Sequence"},
             {"normalizers",
              {{{"type", "Prepend"}, {"prepend", "\u2581"}},
               {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}}}) {
    refused("normalizer", [&](json& d) { d["normalizer"] = normalizer; });
  }
  refused("normalizer of type \"NFKC\"", [](json& d) { d["normalizer"] = {{"type", "NFKC"}}; });
  refused("pre_tokenizer of type \"ByteLevel\"", [](json& d) {
    d["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  });
  refused("pre_tokenizer of type \"Digits\"", [](json& d) {
    d["pre_tokenizer"] = {{"type", "Digits"}, {"individual_digits", true}};
  });
  refused("pre_tokenizer of type \"Split\"", [](json& d) { d["pre_tokenizer"]["pattern"]["String"] = "a"; });
  refused("pre_tokenizer of type \"Split\"", [](json& d) { d["pre_tokenizer"]["behavior"] = "Isolated"; });
  refused("pre_tokenizer of type \"Split\"", [](json& d) { d["pre_tokenizer"]["invert"] = true; });
  refused("post_processor of type \"BertProcessing\"", [](json& d) { d["post_processor"]["type"] = "BertProcessing"; });
  refused("decoder: null", [](json& d) { d["decoder"] = nullptr; });
  refused("decoder of type \"ByteLevel\"", [](json& d) { d["decoder"]["type"] = "ByteLevel"; });
  refused("decoder of type \"Sequence\"", [](json& d) {
    d["decoder"]["decoders"].push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  });
  refused("decoder of type \"Sequence\"", [](json& d) { d["decoder"]["decoders"].erase(1); });
  for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
    refused(std::string("added_tokens[4].") + flag + ": true", [&](json& d) { d["added_tokens"][4][flag] = true; });
  }
  refused("the member \"added_tokens[0].new_flag\"", [](json& d) { d["added_tokens"][0]["new_flag"] = false; });
  refused("added_tokens[125]: content \"a b\", which has a space in it,",
          [](json& d) { d["added_tokens"].push_back(new_token(512, "a b", false)); });
  refused("added_tokens[125]: content \"<0x41>\", which is a byte,", [](json& d) {
    d["added_tokens"].push_back(new_token(d["model"]["vocab"]["<0x41>"].get<int64_t>(), "<0x41>", false));
  });
  refused("model.vocab without the byte <0x41>", [](json& d) {
    d["model"]["vocab"]["@@"] = d["model"]["vocab"]["<0x41>"];
    d["model"]["vocab"].erase("<0x41>");
  });
}

TEST(TokenizerJsonReader, RefusesTokensWhoseOrderOfMatchingDecides) {
  const auto with = [](const std::string& normalized, const std::string& not_normalized) {
    return error_after([&](json& d) {
      json first = new_token(512, normalized, false);
      first["normalized"] = true;
      d["added_tokens"].push_back(first);
      d["added_tokens"].push_back(new_token(513, not_normalized, false));
    });
  };
  // tokenizers finds the second one first.
  EXPECT_THAT(with("xxyy", "yyz"), HasSubstr("\"xxyy\" with normalized: true, inside which another token"));
  EXPECT_THAT(with("xxyyz", "xyy"), HasSubstr("\"xxyyz\" with normalized: true"));
  EXPECT_THAT(with("xxyy", "xx"), HasSubstr("\"xxyy\" with normalized: true"));
  EXPECT_THAT(with("<b>x", "yy"), HasSubstr("\"<b>x\" with normalized: true"));  // <b>
  // Here the second one comes first for both.
  EXPECT_EQ(with("xy", "xyzz"), "no error");
  EXPECT_EQ(with("yyz", "xxyy"), "no error");
  EXPECT_EQ(with("xxyy", "zzzz"), "no error");
}

TEST(TokenizerJsonReader, RefusesPairsThatNoScoresCanExpress) {
  // As BpeTrainer of tokenizers leaves them: one pair a piece.
  EXPECT_THAT(
      error_after([](json& d) {
        json kept = json::array();
        std::set<std::string> made;
        for (const json& merge : d["model"]["merges"]) {
          if (made.insert(merge[0].get<std::string>() + merge[1].get<std::string>()).second) kept.push_back(merge);
        }
        d["model"]["merges"] = kept;
      }),
      testing::ContainsRegex(
          "m/tokenizer.json:[0-9]+:[0-9]+: model.merges: the pair of \".*\" and \".*\" not listed with the others "
          "that make .* .this tokenizer was not made of a sentencepiece model. is not honoured"));
  // A piece that can be cut into two, and no pair for it at all.
  EXPECT_THAT(error_after([](json& d) { d["model"]["vocab"]["vv"] = 512; }),
              HasSubstr("model.merges: the pair of \"v\" and \"v\" not listed with the others that make \"vv\""));
  json document = saved();
  auto& merges = document["model"]["merges"];
  const auto piece_of = [](const json& merge) { return merge[0].get<std::string>() + merge[1].get<std::string>(); };
  // The last piece with two pairs: one of them goes to the end.
  size_t at = merges.size() - 2;
  while (piece_of(merges[at]) != piece_of(merges[at - 1])) --at;
  const json moved = merges[at - 1];
  merges.erase(at - 1);
  merges.push_back(moved);
  EXPECT_THAT(error_of(document.dump()), HasSubstr("not listed with the others that make"));
  merges.insert(merges.begin() + static_cast<std::ptrdiff_t>(at - 1), moved);
  EXPECT_THAT(error_of(document.dump()),
              testing::ContainsRegex("model.merges: a pair that makes .* apart from the others is not honoured"));
}

TEST(TokenizerJsonReader, RefusesABrokenFileWithItsPlace) {
  EXPECT_EQ(error_of(""),
            "m/tokenizer.json:1:1: expected a JSON value, found the end of the text; copy the file again");
  EXPECT_THAT(error_of("{\n \"model\": nul}"), HasSubstr("m/tokenizer.json:2:11: expected a JSON value"));
  EXPECT_THAT(error_of("version https://git-lfs.github.com/spec/v1\n"), HasSubstr("m/tokenizer.json:1:1: expected"));
  EXPECT_THAT(error_of("[]"), HasSubstr("m/tokenizer.json:1:1: the file: expected an object, found an empty array"));
  EXPECT_THAT(error_of("{}"), HasSubstr("m/tokenizer.json:1:1: expected a member model, found none"));
  EXPECT_THAT(error_of("{\"model\": 1, \"model\": 2}"), HasSubstr("each member name once"));
  EXPECT_THAT(error_of(std::string(kMaxTokenizerJsonBytes + 1, ' ')), HasSubstr("expected at most 67108864"));
  const auto broken = [](const std::string& what, const std::function<void(json&)>& change) {
    EXPECT_THAT(error_after(change), HasSubstr(what));
    EXPECT_THAT(error_after(change), testing::MatchesRegex("m/tokenizer.json:[0-9]+:[0-9]+: .*; copy the file again"));
  };
  for (const char* member : {"added_tokens", "normalizer", "decoder"}) {
    broken(std::string("expected a member ") + member, [&](json& d) { d.erase(member); });
  }
  for (const char* member : {"vocab", "merges", "unk_token", "byte_fallback"}) {
    broken(std::string("expected a member model.") + member, [&](json& d) { d["model"].erase(member); });
  }
  broken("model.vocab: expected an object, found an empty array", [](json& d) { d["model"]["vocab"] = json::array(); });
  broken("model.merges: expected an array, found null", [](json& d) { d["model"]["merges"] = nullptr; });
  broken("added_tokens: expected an array, found an empty object", [](json& d) { d["added_tokens"] = json::object(); });
  broken("model.byte_fallback: expected true or false, found null",
         [](json& d) { d["model"]["byte_fallback"] = nullptr; });
  broken("model.unk_token: \"<none>\" is no piece", [](json& d) { d["model"]["unk_token"] = "<none>"; });
  broken("model.unk_token: expected a text, found null", [](json& d) { d["model"]["unk_token"] = nullptr; });
  broken("model.vocab[\"a\"]: expected an id from 0 to 1048575, found the string \"5\"",
         [](json& d) { d["model"]["vocab"]["a"] = "5"; });
  broken("found the number -1", [](json& d) { d["model"]["vocab"]["a"] = -1; });
  broken("found the number 1048576", [](json& d) { d["model"]["vocab"]["a"] = 1 << 20; });
  broken("found the number 1.5", [](json& d) { d["model"]["vocab"]["a"] = 1.5; });
  broken("the id 7 is that of", [](json& d) { d["model"]["vocab"]["a"] = 7; });
  broken("no piece has the id 512, and one has 600", [](json& d) { d["model"]["vocab"]["aqaq"] = 600; });
  broken("model.vocab: a piece without text", [](json& d) { d["model"]["vocab"][""] = 512; });
  broken("added_tokens[0]: expected id and content, found no id", [](json& d) { d["added_tokens"][0].erase("id"); });
  broken("found no content", [](json& d) { d["added_tokens"][0]["content"] = ""; });
  broken("added_tokens[0].id: expected an id, found the number -1", [](json& d) { d["added_tokens"][0]["id"] = -1; });
  broken("added_tokens[0].special: expected true or false, found null",
         [](json& d) { d["added_tokens"][0]["special"] = nullptr; });
  broken("added_tokens[0].content: expected a text, found the number 5",
         [](json& d) { d["added_tokens"][0]["content"] = 5; });
  broken("added_tokens: \"<pad>\" has the id 9, which model.vocab gives to \"<unused3>\"",
         [](json& d) { d["added_tokens"][0]["id"] = 9; });
  broken("added_tokens: \"foo\" has the id 520, expected 512, the next one",
         [](json& d) { d["added_tokens"].push_back(new_token(520, "foo", false)); });
  broken("added_tokens: \"<b>\" has the id 512 and another one",
         [](json& d) { d["added_tokens"].push_back(new_token(512, "<b>", false)); });
  for (const json& pair : {json("ab"), json("a b c"), json(" b"), json("a "), json{"a"}, json{"a", "b", "c"},
                           json{"a", 1}, json{"", "a"}, json(1), json::array()}) {
    broken("model.merges: expected a pair of texts", [&](json& d) { d["model"]["merges"].push_back(pair); });
  }
  broken("model.merges: \"qq\" and \"q\" are no two pieces that make a piece", [](json& d) {
    d["model"]["merges"].push_back({"qq", "q"});
  });
  broken("a second time", [](json& d) {
    auto& merges = d["model"]["merges"];
    merges.push_back(merges.back());
  });
  EXPECT_THAT(error_after([](json& d) { d["model"]["vocab"][std::string(1025, 'a')] = 512; }),
              HasSubstr("1025 bytes long, expected at most 1024"));
  EXPECT_THAT(error_after([](json& d) { d["added_tokens"].push_back(new_token(512, std::string(1025, 'a'), false)); }),
              HasSubstr("added_tokens[125]: content of 1025 bytes, expected at most 1024"));
  EXPECT_THAT(error_after([](json& d) {
                const std::string half(130, 'a');
                d["model"]["vocab"][half] = 512;
                d["model"]["vocab"][half + half] = 513;
                d["model"]["merges"].push_back({half, half});
              }),
              HasSubstr("make a piece of 260 bytes, expected at most 256"));
}

// Every file that differs from a good one in a few bytes is refused or gives pieces that are as many as their ids;
// nothing crashes.
TEST(TokenizerJsonReader, SurvivesBrokenFiles) {
  const std::string good = read_fixture("tiny_tokenizer.json");
  std::mt19937 random(9);  // NOLINT
  int read = 0;
  for (int round = 0; round < 1'000; ++round) {
    std::string bytes = good;
    const auto place = [&] { return random() % bytes.size(); };
    for (size_t n = 1 + random() % 3; n > 0; --n) {
      switch (random() % 5) {
        case 0: bytes[place()] = "{}[],:\"\\0179 aetr<>"[random() % 18]; break;
        case 1: bytes[place()] ^= static_cast<char>(1 << random() % 8); break;
        case 2: bytes.erase(place(), 1 + random() % 20); break;
        case 3: {
          const size_t from = place();
          bytes.insert(place(), bytes.substr(from, random() % 40));
          break;
        }
        default: {  // one number for another
          const size_t at = bytes.find_first_of("0123456789", place());
          if (at != std::string::npos) bytes[at] = static_cast<char>('0' + random() % 10);
        }
      }
    }
    try {
      const SentencePieceModel model = read_tokenizer_json(bytes, "broken");
      EXPECT_GE(model.pieces.size(), 256u);
      ++read;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kModel) << error.what();
      EXPECT_THAT(error.what(), testing::StartsWith("broken:")) << error.what();
    }
  }
  EXPECT_GT(read, 5);
}

}  // namespace
}  // namespace gemma_sft
