#include "data/text/tokenizer_json_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "configs/error.h"
#include "data/files/json_text.h"
#include "data/files/utf8.h"
#include "data/text/added_tokens.h"
#include "data/text/piece_ids.h"

namespace gemma_sft {

namespace {

constexpr std::string_view kSpaceSymbol = "\xe2\x96\x81";  // U+2581
// Of pieces that are joined from others: every way to cut one is looked at. Gemma's longest has 93.
constexpr size_t kMaxJoinedBytes = 256;

struct AddedToken {
  size_t byte = 0;  // where it stands
  int64_t id = 0;
  std::string text;
  bool special = false;
  bool normalized = false;
};

bool is_run(std::string_view text, std::string_view character) {
  if (text.empty()) return false;
  while (text.starts_with(character)) text.remove_prefix(character.size());
  return text.empty();
}

bool is_white_space(std::string_view text) {
  return is_run(text, kSpaceSymbol) || text.find_first_not_of("\n\t\r") == std::string_view::npos;
}

PieceType type_of(const AddedToken& token) {
  if (!token.special) return PieceType::kUserDefined;
  for (const char* name : {"<pad>", "<eos>", "<bos>"}) {
    if (token.text == name) return PieceType::kControl;
  }
  // Control tokens like <start_of_turn> are user-defined pieces in Gemma. White space and HTML tags are text, whatever
  // the file says of them. What is special and looks like nothing of this must not be matched by text either.
  const bool is_tag = token.text.front() == '<' && token.text.back() == '>';
  if (is_control_piece({token.text, 0, PieceType::kUserDefined}) || is_tag || is_white_space(token.text)) {
    return PieceType::kUserDefined;
  }
  return PieceType::kControl;
}

class Reader {
 public:
  Reader(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  SentencePieceModel read() {
    if (text_.size() > kMaxTokenizerJsonBytes) {
      throw Error(ErrorKind::kModel,
                  fmt::format("{}: {} bytes, expected at most {}: this is not a tokenizer of Gemma's kind", name_,
                              text_.size(), kMaxTokenizerJsonBytes));
    }
    constexpr JsonLimits kLimits{.max_depth = 64, .max_members = SentencePieceModel::kMaxPieces + 64};
    if (const std::optional<JsonProblem> problem = find_json_problem(text_, kLimits)) {
      fail(problem->byte, fmt::format("expected {}, found {}; copy the file again", problem->expected, problem->found));
    }
    read_root(JsonValue(text_));
    return std::move(model_);
  }

 private:
  [[noreturn]] void fail(size_t byte, const std::string& what) const {
    const std::string_view before = text_.substr(0, byte);
    const size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0
    throw Error(ErrorKind::kModel,
                fmt::format("{}:{}:{}: {}", name_, std::count(before.begin(), before.end(), '\n') + 1,
                            byte - line_start + 1, what));
  }

  // For what is well-formed and has no equal in a sentencepiece model of Gemma's kind.
  [[noreturn]] void refuse(size_t byte, const std::string& what) const {
    fail(byte, what + " is not honoured: put the tokenizer.model of the model that this one was made of beside it");
  }
  [[noreturn]] void refuse(const std::string& key, const JsonValue& value) const {
    refuse(value.byte(), fmt::format("{}: {}", key, value.description()));
  }

  JsonValue require(const std::optional<JsonValue>& value, const JsonValue& object, const std::string& key) const {
    if (!value) fail(object.byte(), fmt::format("expected a member {}, found none; copy the file again", key));
    return *value;
  }
  void require_kind(const JsonValue& value, JsonKind kind, const std::string& key, const char* expected) const {
    if (value.kind() != kind) {
      fail(value.byte(),
           fmt::format("{}: expected {}, found {}; copy the file again", key, expected, value.description()));
    }
  }

  // Null, false, 0 and "" are how a file says that it does not use a setting.
  void require_unset(const JsonValue& value, const std::string& key) const {
    const bool unset = value.kind() == JsonKind::kNull || (value.kind() == JsonKind::kBool && !value.boolean()) ||
                       value.raw() == "0" || value.raw() == "0.0" || value.raw() == "\"\"";
    if (!unset) refuse(key, value);
  }

  bool boolean(const JsonValue& value, const std::string& key) const {
    require_kind(value, JsonKind::kBool, key, "true or false");
    return value.boolean();
  }

  // "" where `object` has no member "type" that is a text.
  std::string type_name(const JsonValue& object) const {
    std::string type;
    if (object.kind() != JsonKind::kObject) return type;
    object.each_member([&](const JsonMember& member) {
      if (member.name == "type" && member.value.kind() == JsonKind::kString) type = member.value.string();
      return type.empty();
    });
    return type;
  }

  // Whether `object` has these members with these texts, and no others. "pattern" may be {"String": x} or {"Regex": x}.
  bool has_exactly(const JsonValue& object,
                   std::initializer_list<std::pair<std::string_view, std::string_view>> expected) const {
    if (object.kind() != JsonKind::kObject) return false;
    size_t count = 0;
    bool equal = true;
    object.each_member([&](const JsonMember& member) {
      const auto found =
          std::find_if(expected.begin(), expected.end(), [&](const auto& entry) { return entry.first == member.name; });
      if (found == expected.end()) return equal = false;
      ++count;
      const auto compare = [&](const JsonValue& value) {
        equal = equal &&
                (value.kind() == JsonKind::kString ? value.string() == found->second : value.raw() == found->second);
      };
      if (member.name == "pattern" && member.value.kind() == JsonKind::kObject) {
        member.value.each_member([&](const JsonMember& pattern) {
          equal = equal && (pattern.name == "String" || pattern.name == "Regex");
          compare(pattern.value);
          return equal;
        });
      } else {
        compare(member.value);
      }
      return equal;
    });
    return equal && count == expected.size();
  }

  // The only element of a {"type": "Sequence", `list`: [...]}, or the value itself.
  JsonValue unwrapped(const JsonValue& value, const char* list) const {
    if (type_name(value) != "Sequence") return value;
    std::vector<JsonValue> elements;
    value.each_member([&](const JsonMember& member) {
      if (member.name == list && member.value.kind() == JsonKind::kArray) {
        member.value.each_element([&](const JsonValue& element) {
          elements.push_back(element);
          return elements.size() < 2;
        });
      }
      return true;
    });
    return elements.size() == 1 ? elements.front() : value;
  }

  [[noreturn]] void refuse_kind(const std::string& key, const JsonValue& value) const {
    const std::string type = type_name(value);
    refuse(value.byte(), type.empty() ? fmt::format("{}: {}", key, value.description())
                                      : fmt::format("{} of type {} with these settings", key, quoted_excerpt(type)));
  }

  void check_normalizer(const JsonValue& value) const {
    if (!has_exactly(unwrapped(value, "normalizers"),
                     {{"type", "Replace"}, {"pattern", " "}, {"content", kSpaceSymbol}})) {
      refuse_kind("normalizer", value);
    }
  }

  void check_pre_tokenizer(const JsonValue& value) const {
    // No space is left where it looks for one.
    if (value.kind() != JsonKind::kNull &&
        !has_exactly(unwrapped(value, "pretokenizers"),
                     {{"type", "Split"}, {"pattern", " "}, {"behavior", "MergedWithPrevious"}, {"invert", "false"}})) {
      refuse_kind("pre_tokenizer", value);
    }
  }

  void check_post_processor(const JsonValue& value) const {
    if (value.kind() != JsonKind::kNull && type_name(unwrapped(value, "processors")) != "TemplateProcessing") {
      refuse_kind("post_processor", value);
    }
  }

  void check_decoder(const JsonValue& value) const {
    size_t at = 0;
    bool equal = type_name(value) == "Sequence";
    if (equal) {
      value.each_member([&](const JsonMember& member) {
        if (member.name != "decoders" || member.value.kind() != JsonKind::kArray) return true;
        member.value.each_element([&](const JsonValue& element) {
          switch (at++) {
            case 0:
              return equal = has_exactly(element, {{"type", "Replace"}, {"pattern", kSpaceSymbol}, {"content", " "}});
            case 1: return equal = has_exactly(element, {{"type", "ByteFallback"}});
            case 2: return equal = has_exactly(element, {{"type", "Fuse"}});
            default: return equal = false;
          }
        });
        return equal;
      });
    }
    if (!equal || at != 3) refuse_kind("decoder", value);
  }

  void read_root(const JsonValue& root) {
    require_kind(root, JsonKind::kObject, "the file", "an object");
    std::optional<JsonValue> added_tokens, normalizer, pre_tokenizer, post_processor, decoder, model;
    root.each_member([&](const JsonMember& member) {
      if (member.name == "added_tokens") {
        added_tokens = member.value;
      } else if (member.name == "normalizer") {
        normalizer = member.value;
      } else if (member.name == "pre_tokenizer") {
        pre_tokenizer = member.value;
      } else if (member.name == "post_processor") {
        post_processor = member.value;
      } else if (member.name == "decoder") {
        decoder = member.value;
      } else if (member.name == "model") {
        model = member.value;
      } else if (member.name != "version" && member.name != "truncation" && member.name != "padding" &&
                 member.value.kind() != JsonKind::kNull) {
        refuse(member.name_byte, fmt::format("the member {}", quoted_excerpt(member.name)));
      }
      return true;
    });
    require(model, root, "model");
    require(added_tokens, root, "added_tokens");
    require_kind(*model, JsonKind::kObject, "model", "an object");
    if (const std::string type = type_name(*model); type != "BPE") {
      refuse(model->byte(), fmt::format("model.type: {}", type.empty() ? "no text" : quoted_excerpt(type)));
    }
    check_normalizer(require(normalizer, root, "normalizer"));
    if (pre_tokenizer) check_pre_tokenizer(*pre_tokenizer);
    if (post_processor) check_post_processor(*post_processor);
    check_decoder(require(decoder, root, "decoder"));
    read_model(*model, *added_tokens);
  }

  void read_model(const JsonValue& object, const JsonValue& added_tokens) {
    std::optional<JsonValue> vocab, merges, unknown, byte_fallback;
    object.each_member([&](const JsonMember& member) {
      const std::string key = "model." + member.name;
      if (member.name == "vocab") {
        vocab = member.value;
      } else if (member.name == "merges") {
        merges = member.value;
      } else if (member.name == "unk_token") {
        unknown = member.value;
      } else if (member.name == "byte_fallback") {
        byte_fallback = member.value;
      } else if (member.name == "dropout" || member.name == "continuing_subword_prefix" ||
                 member.name == "end_of_word_suffix" || member.name == "ignore_merges") {
        require_unset(member.value, key);
      } else if (member.name != "type" && member.name != "fuse_unk" && member.value.kind() != JsonKind::kNull) {
        // fuse_unk: every byte is a piece, so nothing is unknown.
        refuse(member.name_byte, fmt::format("the member {}", quoted_excerpt(key)));
      }
      return true;
    });
    if (!boolean(require(byte_fallback, object, "model.byte_fallback"), "model.byte_fallback")) {
      refuse("model.byte_fallback", *byte_fallback);
    }
    require_kind(require(unknown, object, "model.unk_token"), JsonKind::kString, "model.unk_token", "a text");
    read_vocab(require(vocab, object, "model.vocab"));
    const size_t vocab_size = model_.pieces.size();
    read_added_tokens(added_tokens, vocab_size);
    const std::string unknown_text = unknown->string();
    const int32_t unknown_id = ids_.find(unknown_text);
    if (unknown_id < 0) {
      fail(unknown->byte(), fmt::format("model.unk_token: {} is no piece of model.vocab; copy the file again",
                                        quoted_excerpt(unknown_text)));
    }
    piece_of(unknown_id).type = PieceType::kUnknown;
    mark_bytes(*vocab);
    read_merges(require(merges, object, "model.merges"));
    check_unjoined(*vocab);
  }

  void read_vocab(const JsonValue& vocab) {
    require_kind(vocab, JsonKind::kObject, "model.vocab", "an object");
    std::vector<Piece>& pieces = model_.pieces;
    vocab.each_member([&](const JsonMember& member) {
      const auto here = [&] { return fmt::format("model.vocab[{}]", quoted_excerpt(member.name)); };
      const std::optional<int64_t> id =
          member.value.kind() == JsonKind::kNumber ? member.value.integer() : std::nullopt;
      if (!id || *id < 0 || *id >= static_cast<int64_t>(SentencePieceModel::kMaxPieces)) {
        fail(member.value.byte(), fmt::format("{}: expected an id from 0 to {}, found {}; copy the file again", here(),
                                              SentencePieceModel::kMaxPieces - 1, member.value.description()));
      }
      if (member.name.empty()) fail(member.name_byte, "model.vocab: a piece without text; copy the file again");
      if (member.name.size() > SentencePieceModel::kMaxPieceBytes) {
        fail(member.name_byte, fmt::format("{}: {} bytes long, expected at most {}", here(), member.name.size(),
                                           SentencePieceModel::kMaxPieceBytes));
      }
      const auto index = static_cast<size_t>(*id);
      if (index >= pieces.size()) pieces.resize(index + 1);
      if (!pieces[index].text.empty()) {
        fail(member.value.byte(), fmt::format("{}: the id {} is that of {} too; copy the file again", here(), *id,
                                              quoted_excerpt(pieces[index].text)));
      }
      pieces[index].text = member.name;
      return true;
    });
    for (size_t id = 0; id < pieces.size(); ++id) {
      if (pieces[id].text.empty()) {
        fail(vocab.byte(), fmt::format("model.vocab: no piece has the id {}, and one has {}; copy the file again", id,
                                       pieces.size() - 1));
      }
    }
    ids_.index();
  }

  AddedToken read_added_token(const JsonValue& value, size_t index) const {
    const std::string key = fmt::format("added_tokens[{}]", index);
    require_kind(value, JsonKind::kObject, key, "an object");
    AddedToken token;
    token.byte = value.byte();
    bool has_id = false;
    value.each_member([&](const JsonMember& member) {
      const std::string place = key + "." + member.name;
      if (member.name == "id") {
        const std::optional<int64_t> id =
            member.value.kind() == JsonKind::kNumber ? member.value.integer() : std::nullopt;
        if (!id || *id < 0) {
          fail(member.value.byte(),
               fmt::format("{}: expected an id, found {}; copy the file again", place, member.value.description()));
        }
        token.id = *id;
        has_id = true;
      } else if (member.name == "content") {
        require_kind(member.value, JsonKind::kString, place, "a text");
        token.text = member.value.string();
      } else if (member.name == "special") {
        token.special = boolean(member.value, place);
      } else if (member.name == "normalized") {
        token.normalized = boolean(member.value, place);
      } else if (member.name == "single_word" || member.name == "lstrip" || member.name == "rstrip") {
        if (boolean(member.value, place)) refuse(place, member.value);
      } else {
        refuse(member.name_byte, fmt::format("the member {}", quoted_excerpt(place)));
      }
      return true;
    });
    if (!has_id || token.text.empty()) {
      fail(value.byte(), fmt::format("{}: expected id and content, found {}; copy the file again", key,
                                     has_id ? "no content" : "no id"));
    }
    if (token.text.size() > SentencePieceModel::kMaxPieceBytes) {
      fail(value.byte(), fmt::format("{}: content of {} bytes, expected at most {}", key, token.text.size(),
                                     SentencePieceModel::kMaxPieceBytes));
    }
    if (token.text.find(' ') != std::string::npos) {
      refuse(value.byte(), fmt::format("{}: content {}, which has a space in it,", key, quoted_excerpt(token.text)));
    }
    if (byte_of_piece(token.text) >= 0) {
      refuse(value.byte(), fmt::format("{}: content {}, which is a byte,", key, quoted_excerpt(token.text)));
    }
    return token;
  }

  void read_added_tokens(const JsonValue& array, size_t vocab_size) {
    require_kind(array, JsonKind::kArray, "added_tokens", "an array");
    std::vector<AddedToken> tokens;
    array.each_element([&](const JsonValue& value) {
      if (tokens.size() == SentencePieceModel::kMaxPieces) {
        fail(value.byte(), fmt::format("added_tokens: more than {}", SentencePieceModel::kMaxPieces));
      }
      tokens.push_back(read_added_token(value, tokens.size()));
      return true;
    });
    check_order_of_matching(tokens);
    std::vector<AddedToken> past;  // the vocabulary
    for (AddedToken& token : tokens) {
      if (token.id >= static_cast<int64_t>(vocab_size)) {
        past.push_back(std::move(token));
        continue;
      }
      Piece& piece = model_.pieces[static_cast<size_t>(token.id)];
      if (piece.text != token.text) {
        fail(token.byte,
             fmt::format("added_tokens: {} has the id {}, which model.vocab gives to {}; copy the file again",
                         quoted_excerpt(token.text), token.id, quoted_excerpt(piece.text)));
      }
      piece.type = type_of(token);
    }
    std::stable_sort(past.begin(), past.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
    if (!past.empty() && past.back().special && past.back().text == kImageToken) past.pop_back();
    if (past.empty()) return;
    for (AddedToken& token : past) {
      if (token.id != static_cast<int64_t>(model_.pieces.size()) ||
          model_.pieces.size() == SentencePieceModel::kMaxPieces) {
        fail(token.byte, fmt::format("added_tokens: {} has the id {}, expected {}, the next one; copy the file again",
                                     quoted_excerpt(token.text), token.id, model_.pieces.size()));
      }
      const PieceType type = type_of(token);
      model_.pieces.push_back({std::move(token.text), 0, type});
    }
    if (const int32_t id = ids_.index(); id >= 0) {
      fail(array.byte(), fmt::format("added_tokens: {} has the id {} and another one; copy the file again",
                                     quoted_excerpt(piece_of(id).text), id));
    }
  }

  // tokenizers looks for tokens with "normalized": false first, and for the others in what is left; sentencepiece takes
  // the longest that starts first. The same, unless one of the former starts inside one of the latter.
  void check_order_of_matching(const std::vector<AddedToken>& tokens) const {
    std::set<std::string_view> first;
    for (const AddedToken& token : tokens) {
      if (!token.normalized) first.insert(token.text);
    }
    for (const AddedToken& token : tokens) {
      if (!token.normalized || first.empty() || is_run(token.text, kSpaceSymbol)) continue;
      const std::string_view text = token.text;
      for (size_t at = 0; at < text.size(); ++at) {
        const std::string_view rest = text.substr(at);
        // Those that begin with `rest` follow it in the order; those that `rest` begins with are its prefixes.
        const auto next = first.lower_bound(rest);
        bool meets = at > 0 && next != first.end() && next->starts_with(rest);
        for (size_t size = 1; size <= rest.size() && !meets; ++size) {
          meets = (at > 0 || size < rest.size()) && first.contains(rest.substr(0, size));
        }
        if (meets) {
          refuse(token.byte, fmt::format("added_tokens: {} with normalized: true, inside which another token with "
                                         "normalized: false can start,",
                                         quoted_excerpt(text)));
        }
      }
    }
  }

  void mark_bytes(const JsonValue& vocab) {
    for (int byte = 0; byte < 256; ++byte) {
      const std::string text = fmt::format("<0x{:02X}>", byte);
      const int32_t id = ids_.find(text);
      if (id < 0) refuse(vocab.byte(), fmt::format("model.vocab without the byte {}", text));
      piece_of(id).type = PieceType::kByte;
    }
  }

  Piece& piece_of(int32_t id) { return model_.pieces[static_cast<size_t>(id)]; }
  const Piece& piece_of(int32_t id) const { return model_.pieces[static_cast<size_t>(id)]; }

  // Pieces of other types are cut out of a text before anything in it is joined.
  bool is_joined(int32_t id) const { return id >= 0 && piece_of(id).type == PieceType::kNormal; }

  // The first way to cut the piece into two that is not among `listed` (sizes of left parts); 0 when there is none.
  size_t unlisted_cut(std::string_view text, const std::vector<size_t>& listed) const {
    for (size_t at = 1; at < text.size(); ++at) {
      if ((text[at] & 0xc0) == 0x80) continue;  // inside a character
      if (std::find(listed.begin(), listed.end(), at) != listed.end()) continue;
      if (is_joined(ids_.find(text.substr(0, at))) && is_joined(ids_.find(text.substr(at)))) return at;
    }
    return 0;
  }

  void require_all_cuts(int32_t id, const std::vector<size_t>& listed, size_t byte) const {
    const std::string_view text = piece_of(id).text;
    if (text.size() > kMaxJoinedBytes && !listed.empty()) {
      fail(byte, fmt::format("model.merges: make a piece of {} bytes, expected at most {}: this is not a tokenizer of "
                             "Gemma's kind",
                             text.size(), kMaxJoinedBytes));
    }
    if (text.size() > kMaxJoinedBytes) return;
    if (const size_t at = unlisted_cut(text, listed)) {
      refuse(
          byte,
          fmt::format("model.merges: the pair of {} and {} not listed with the others that make {} (this tokenizer was "
                      "not made of a sentencepiece model)",
                      quoted_excerpt(text.substr(0, at)), quoted_excerpt(text.substr(at)), quoted_excerpt(text)));
    }
  }

  // The text of a checked JSON string; a view of the file where nothing in it is escaped, of `scratch` otherwise.
  static std::string_view string_of(const JsonValue& value, std::string& scratch) {
    const std::string_view raw = value.raw();
    if (raw.find('\\') == std::string_view::npos) return raw.substr(1, raw.size() - 2);
    scratch = value.string();
    return scratch;
  }

  // A pair, written "left right" or ["left", "right"].
  void read_pair(const JsonValue& value, std::string& joined, size_t& left_size) {
    const auto fail_form = [&] {
      fail(value.byte(),
           fmt::format("model.merges: expected a pair of texts, found {}; copy the file again", value.description()));
    };
    joined.clear();
    left_size = 0;
    if (value.kind() == JsonKind::kString) {
      const std::string_view text = string_of(value, scratch_);
      const size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) fail_form();
      joined.append(text.substr(0, space));
      left_size = space;
      joined.append(text.substr(space + 1));
    } else if (value.kind() == JsonKind::kArray) {
      size_t count = 0;
      value.each_element([&](const JsonValue& part) {
        if (part.kind() != JsonKind::kString || count == 2) fail_form();
        joined.append(string_of(part, scratch_));
        if (count++ == 0) left_size = joined.size();
        return true;
      });
      if (count != 2) fail_form();
    } else {
      fail_form();
    }
    if (left_size == 0 || left_size == joined.size()) fail_form();
  }

  void read_merges(const JsonValue& merges) {
    require_kind(merges, JsonKind::kArray, "model.merges", "an array");
    std::vector<bool> is_made(model_.pieces.size());
    std::vector<size_t> cuts;  // of the piece whose pairs are being read
    int32_t current = -1;
    size_t current_byte = 0;
    size_t rank = 0;  // of pieces
    std::string joined;
    size_t left_size = 0;
    const auto finish = [&] {
      if (current < 0) return;
      require_all_cuts(current, cuts, current_byte);
      piece_of(current).score = -static_cast<float>(rank++);
    };
    merges.each_element([&](const JsonValue& value) {
      read_pair(value, joined, left_size);
      const std::string_view text = joined;
      const int32_t left = ids_.find(text.substr(0, left_size));
      const int32_t right = ids_.find(text.substr(left_size));
      const int32_t made = current >= 0 && piece_of(current).text == text ? current : ids_.find(text);
      if (left < 0 || right < 0 || made < 0) {
        fail(value.byte(),
             fmt::format("model.merges: {} and {} are no two pieces that make a piece; copy the file again",
                         quoted_excerpt(text.substr(0, left_size)), quoted_excerpt(text.substr(left_size))));
      }
      if (piece_of(made).type == PieceType::kByte) {
        refuse(value.byte(), fmt::format("model.merges: a pair that makes the byte {}", joined));
      }
      if (!is_joined(left) || !is_joined(right) || !is_joined(made)) return true;
      if (made != current) {
        finish();
        current = made;
        current_byte = value.byte();
        cuts.clear();
        if (is_made[static_cast<size_t>(current)]) {
          refuse(value.byte(),
                 fmt::format("model.merges: a pair that makes {} apart from the others", quoted_excerpt(text)));
        }
        is_made[static_cast<size_t>(current)] = true;
      }
      if (std::find(cuts.begin(), cuts.end(), left_size) != cuts.end()) {
        fail(value.byte(),
             fmt::format("model.merges: the pair of {} and {} a second time; copy the file again",
                         quoted_excerpt(text.substr(0, left_size)), quoted_excerpt(text.substr(left_size))));
      }
      cuts.push_back(left_size);
      return true;
    });
    finish();
    made_ = std::move(is_made);
    next_rank_ = rank;
  }

  // Pieces that no pair makes: single characters, and such as no text ever gives. They come after the others.
  void check_unjoined(const JsonValue& vocab) {
    for (size_t id = 0; id < model_.pieces.size(); ++id) {
      Piece& piece = model_.pieces[id];
      if (piece.type != PieceType::kNormal || made_[id]) continue;
      require_all_cuts(static_cast<int32_t>(id), {}, vocab.byte());
      piece.score = -static_cast<float>(next_rank_++);
    }
  }

  std::string_view text_;
  const std::string& name_;
  SentencePieceModel model_;
  PieceIds ids_{model_.pieces};
  std::vector<bool> made_;  // by id: some pair makes it
  size_t next_rank_ = 0;
  std::string scratch_;
};

}  // namespace

SentencePieceModel read_tokenizer_json(std::string_view json, const std::string& name) {
  return Reader(json, name).read();
}

}  // namespace gemma_sft
