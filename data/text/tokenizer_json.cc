#include "data/text/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/files/json_text.h"

namespace gemma_sft {

namespace {

bool is_space_run(std::string_view text) {
  constexpr std::string_view kSpaceSymbol = "\xe2\x96\x81";
  for (; !text.empty(); text.remove_prefix(kSpaceSymbol.size())) {
    if (!text.starts_with(kSpaceSymbol)) return false;
  }
  return true;
}

// A pair of pieces that the tokenizer joins, with the piece it gives.
struct Merge {
  std::string_view left;
  std::string_view right;
  float score = 0;       // of the piece that they make: higher goes first
  size_t left_size = 0;  // in characters
};

size_t characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// sentencepiece joins any two neighbours whose concatenation is a piece, best score first. tokenizers has a ranked list
// of pairs: so each way to cut a piece into two pieces is one pair, in the order of the scores.
std::vector<Merge> find_merges(const SentencePieceModel& model) {
  std::unordered_map<std::string_view, PieceType> types;
  for (const Piece& piece : model.pieces) types.emplace(piece.text, piece.type);
  const auto can_be_joined = [&](std::string_view text) {
    const auto found = types.find(text);
    // Other user-defined pieces are frozen: they are cut out of the text before anything is joined.
    return found != types.end() && (found->second == PieceType::kNormal || found->second == PieceType::kUnused);
  };
  std::vector<Merge> merges;
  for (const Piece& piece : model.pieces) {
    if (piece.type != PieceType::kNormal) continue;
    const std::string_view text = piece.text;
    for (size_t at = 1; at < text.size(); ++at) {
      if ((text[at] & 0xc0) == 0x80) continue;  // inside a character
      const std::string_view left = text.substr(0, at);
      const std::string_view right = text.substr(at);
      if (can_be_joined(left) && can_be_joined(right)) merges.push_back({left, right, piece.score, characters(left)});
    }
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return a.score != b.score ? a.score > b.score : a.left_size > b.left_size;
  });
  return merges;
}

const char* true_or_false(bool value) { return value ? "true" : "false"; }

}  // namespace

std::string make_tokenizer_json(const SentencePieceModel& model) {
  std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [";
  const char* separator = "\n";
  std::optional<size_t> bos;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const Piece& piece = model.pieces[id];
    if (piece.type == PieceType::kControl && piece.text == "<bos>") bos = id;
    if (piece.type != PieceType::kUserDefined && piece.type != PieceType::kControl && piece.type != PieceType::kUnknown)
      continue;
    // Runs of spaces are looked for after spaces have become U+2581.
    const bool is_turn = piece.text == "<start_of_turn>" || piece.text == "<end_of_turn>";
    out += fmt::format(
        "{}    {{\"id\": {}, \"content\": {}, \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
        "\"normalized\": {}, \"special\": {}}}",
        separator, id, json_quoted(piece.text), true_or_false(is_space_run(piece.text)),
        true_or_false(piece.type != PieceType::kUserDefined || is_turn));
    separator = ",\n";
  }
  out +=
      "\n  ],\n"
      "  \"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"},\n"
      "  \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \" \"}, \"behavior\": "
      "\"MergedWithPrevious\", "
      "\"invert\": false},\n";
  if (bos) {
    out += fmt::format(
        "  \"post_processor\": {{\"type\": \"TemplateProcessing\",\n"
        "    \"single\": [{{\"SpecialToken\": {{\"id\": \"<bos>\", \"type_id\": 0}}}}, "
        "{{\"Sequence\": {{\"id\": \"A\", \"type_id\": 0}}}}],\n"
        "    \"pair\": [{{\"SpecialToken\": {{\"id\": \"<bos>\", \"type_id\": 0}}}}, "
        "{{\"Sequence\": {{\"id\": \"A\", \"type_id\": 0}}}}, {{\"SpecialToken\": {{\"id\": \"<bos>\", \"type_id\": "
        "1}}}}, "
        "{{\"Sequence\": {{\"id\": \"B\", \"type_id\": 1}}}}],\n"
        "    \"special_tokens\": {{\"<bos>\": {{\"id\": \"<bos>\", \"ids\": [{}], \"tokens\": [\"<bos>\"]}}}}}},\n",
        *bos);
  } else {
    out += "  \"post_processor\": null,\n";
  }
  out +=
      "  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": "
      "\"\xe2\x96\x81\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]},\n"
      "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": \"<unk>\",\n"
      "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": true,\n"
      "    \"byte_fallback\": true,\n    \"ignore_merges\": false,\n    \"vocab\": {";
  separator = "\n";
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    out += fmt::format("{}      {}: {}", separator, json_quoted(model.pieces[id].text), id);
    separator = ",\n";
  }
  out += "\n    },\n    \"merges\": [";
  separator = "\n";
  for (const Merge& merge : find_merges(model)) {
    out += fmt::format("{}      [{}, {}]", separator, json_quoted(merge.left), json_quoted(merge.right));
    separator = ",\n";
  }
  out += "\n    ]\n  }\n}\n";
  return out;
}

const char* gemma_jinja_template() {
  // System text goes into the first user turn; any turn out of order is an error, as with the published template.
  return "{{ bos_token }}"
         "{%- set fold = namespace(text='') -%}"
         "{%- set turns = messages -%}"
         "{%- if messages[0]['role'] == 'system' -%}"
         "{%- set fold.text = (messages[0]['content'] if messages[0]['content'] is string "
         "else messages[0]['content'][0]['text']) + '\\n\\n' -%}"
         "{%- set turns = messages[1:] -%}"
         "{%- endif -%}"
         "{%- for turn in turns -%}"
         "{%- if turn['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}"
         "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
         "{%- endif -%}"
         "{{ '<start_of_turn>' + ('user' if turn['role'] == 'user' else 'model') + '\\n' }}"
         "{%- if loop.first -%}{{ fold.text }}{%- endif -%}"
         "{%- if turn['content'] is string -%}"
         "{{ turn['content'] | trim }}"
         "{%- else -%}"
         "{%- for part in turn['content'] if part['type'] == 'text' -%}{{ part['text'] | trim }}{%- endfor -%}"
         "{%- endif -%}"
         "{{ '<end_of_turn>\\n' }}"
         "{%- endfor -%}"
         "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}";
}

std::string make_tokenizer_config_json(const SentencePieceModel& model) {
  std::string out =
      "{\n  \"tokenizer_class\": \"GemmaTokenizer\",\n  \"add_bos_token\": true,\n  \"add_eos_token\": false,\n"
      "  \"clean_up_tokenization_spaces\": false,\n  \"spaces_between_special_tokens\": false,\n";
  for (const char* name : {"bos", "eos", "pad", "unk", "mask"}) {
    const std::string piece = fmt::format("<{}>", name);
    const bool is_there =
        std::any_of(model.pieces.begin(), model.pieces.end(), [&](const Piece& p) { return p.text == piece; });
    if (is_there) out += fmt::format("  \"{}_token\": \"{}\",\n", name, piece);
  }
  out += fmt::format("  \"chat_template\": {}\n}}\n", json_quoted(gemma_jinja_template()));
  return out;
}

}  // namespace gemma_sft
