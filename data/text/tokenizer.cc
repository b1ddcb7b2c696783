#include "data/text/tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/folder_entry.h"
#include "data/files/pickle.h"
#include "data/files/sha256.h"
#include "data/files/utf8.h"
#include "data/text/added_tokens.h"
#include "data/text/sentencepiece_model.h"
#include "data/text/tokenizer_json_reader.h"

namespace gemma_sft {

namespace {

constexpr std::string_view kSpaceSymbol = "\xe2\x96\x81";  // U+2581

// Texts longer than this are tokenised in stretches cut at line ends, so that memory stays flat: the library takes
// about 100 bytes for each byte of its input.
constexpr size_t kStretchBytes = 64 << 10;
// A stretch that cannot be cut so is refused when it is longer than this; in natural languages none is.
constexpr size_t kMaxStretchBytes = 512 << 10;

using Processor = sentencepiece::SentencePieceProcessor;

std::unique_ptr<Processor> make_processor(const SentencePieceModel& model, const std::string& name) {
  auto processor = std::make_unique<Processor>();
  const auto status = processor->LoadFromSerializedProto(serialize_sentencepiece_model(model));
  if (!status.ok()) {
    throw Error(ErrorKind::kModel,
                fmt::format("{}: is not a usable tokenizer: {}; copy the file again", name, status.message()));
  }
  return processor;
}

std::string read_tokenizer_file(const std::filesystem::path& file, uint64_t max_bytes) {
  try {
    return read_file(file, max_bytes);
  } catch (const Error& error) {
    throw Error(ErrorKind::kModel, error.what());
  }
}

// transformers would read those of the folder, and text that spells one would have other ids than here.
void require_no_added_tokens(const std::filesystem::path& model_file, size_t pieces) {
  const std::filesystem::path folder = model_file.parent_path();
  const std::optional<AddedTokens> added = find_added_tokens(folder, pieces);
  if (!added) return;
  const bool is_json = added->file.filename() == "tokenizer.json";
  throw Error(ErrorKind::kModel,
              fmt::format("{}: adds {} tokens, such as {}, to the {} pieces of tokenizer.model, which does not know "
                          "them; {}",
                          added->file.string(), added->count, quoted_excerpt(added->first), pieces,
                          is_json ? "remove tokenizer.model, and tokenizer.json is read instead"
                                  : "save the tokenizer with transformers, which writes a tokenizer.json, and remove "
                                    "tokenizer.model"));
}

void require_id(int32_t id) {
  if (id < 0) throw Error(ErrorKind::kInternal, fmt::format("the token id {} is negative", id));
}

// True when `character` stands nowhere in the piece but in a run at its start.
bool run_starts_piece(std::string_view piece, std::string_view character) {
  while (piece.starts_with(character)) piece.remove_prefix(character.size());
  return piece.find(character) == std::string_view::npos;
}

}  // namespace

struct Tokenizer::State {
  std::string name;  // of the file, for messages
  std::string sha256;
  SentencePieceModel model;
  std::unordered_map<std::string_view, int32_t> ids;  // views into model.pieces
  std::vector<bool> control;                          // by id
  // Lengths of the control tokens' texts, longest first, by their first byte.
  std::array<std::vector<size_t>, 256> control_lengths;
  // Whether a text may be cut before a run of newlines, or of spaces, without changing its ids: when no piece goes past
  // the start of one, nothing on one side can be joined with anything on the other.
  bool newline_runs_start_pieces = true;
  bool space_runs_start_pieces = true;
  size_t longest_piece = 0;  // bytes
  int32_t bos = 0, eos = 0, pad = 0, unk = 0, start_of_turn = 0, end_of_turn = 0;

  std::unique_ptr<Processor> plain;
  mutable std::once_flag literal_once;
  mutable std::unique_ptr<Processor> literal;  // made when first needed: it takes as long to load as the plain one

  const Processor& literal_processor() const {
    std::call_once(literal_once, [this] {
      SentencePieceModel without = model;
      for (size_t id = 0; id < without.pieces.size(); ++id) {
        // Pieces of type control are never matched by text.
        if (control[id] && without.pieces[id].type == PieceType::kUserDefined) {
          without.pieces[id].type = PieceType::kControl;
        }
      }
      literal = make_processor(without, name);
    });
    return *literal;
  }

  // Length of the control token that starts at `at`, 0 when none does.
  size_t control_token_at(std::string_view text, size_t at) const {
    for (const size_t length : control_lengths[static_cast<unsigned char>(text[at])]) {
      if (length > text.size() - at) continue;
      const auto found = ids.find(text.substr(at, length));
      if (found != ids.end() && control[static_cast<size_t>(found->second)]) return length;
    }
    return 0;
  }

  // Bytes of the first stretch of `text`: all of it, or up to a place where it may be cut.
  size_t stretch_size(std::string_view text) const {
    for (size_t at = kStretchBytes; at < text.size(); ++at) {
      const char c = text[at];
      if (c == text[at - 1]) continue;  // inside a run
      if (c == '\n' && newline_runs_start_pieces) return at;
      // U+2581 in the text is taken as a space.
      if (c == ' ' && space_runs_start_pieces && !text.substr(0, at).ends_with(kSpaceSymbol)) return at;
    }
    return text.size();
  }

  void append(const Processor& processor, std::string_view text, std::vector<int32_t>& ids_out) const {
    std::vector<int> stretch_ids;
    while (!text.empty()) {
      const size_t size = stretch_size(text);
      if (size > kMaxStretchBytes) {
        throw Error(
            ErrorKind::kData,
            fmt::format("expected a line end or a space at least every {} bytes of text, found {} bytes without "
                        "one ({}); such a stretch cannot be tokenised in bounded memory: break it or take it out",
                        kMaxStretchBytes, size, quoted_excerpt(text.substr(0, 40), 40)));
      }
      stretch_ids.clear();
      const auto status = processor.Encode(text.substr(0, size), &stretch_ids);
      if (!status.ok()) {
        throw Error(ErrorKind::kInternal, fmt::format("{}: tokenising failed: {}", name, status.message()));
      }
      ids_out.insert(ids_out.end(), stretch_ids.begin(), stretch_ids.end());
      text.remove_prefix(size);
    }
  }
};

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;

std::filesystem::path tokenizer_file(const std::filesystem::path& folder_or_file) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder_or_file, ignored)) {
    if (std::filesystem::exists(folder_or_file, ignored)) return folder_or_file;
    throw Error(ErrorKind::kModel,
                fmt::format("{}: not found; copy the tokenizer file from the model's repository to this place",
                            folder_or_file.string()));
  }
  for (const char* name : {"tokenizer.model", "tokenizer.json"}) {
    if (has_folder_entry(folder_or_file, name)) return folder_or_file / name;
  }
  throw Error(ErrorKind::kModel,
              fmt::format("{}: not found, and no tokenizer.json beside it; copy tokenizer.model from the model's "
                          "repository into the model folder",
                          (folder_or_file / "tokenizer.model").string()));
}

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::filesystem::path& folder_or_file) {
  const std::filesystem::path file = tokenizer_file(folder_or_file);
  auto state = std::make_unique<State>();
  state->name = file.string();
  const bool is_json = file.extension() == ".json";
  const std::string bytes =
      read_tokenizer_file(file, is_json ? kMaxTokenizerJsonBytes : SentencePieceModel::kMaxFileBytes);
  state->sha256 = sha256_hex(bytes);
  state->model = is_json ? read_tokenizer_json(bytes, state->name) : parse_sentencepiece_model(bytes, state->name);
  if (!is_json && file != folder_or_file) require_no_added_tokens(file, state->model.pieces.size());
  state->plain = make_processor(state->model, state->name);

  const std::vector<Piece>& pieces = state->model.pieces;
  state->ids.reserve(pieces.size());
  state->control.resize(pieces.size());
  for (size_t id = 0; id < pieces.size(); ++id) {
    const std::string& text = pieces[id].text;
    state->ids.emplace(text, static_cast<int32_t>(id));
    state->newline_runs_start_pieces &= run_starts_piece(text, "\n");
    state->space_runs_start_pieces &= run_starts_piece(text, kSpaceSymbol);
    state->longest_piece = std::max(state->longest_piece, text.size());
    if (!is_control_piece(pieces[id])) continue;
    state->control[id] = true;
    auto& lengths = state->control_lengths[static_cast<unsigned char>(text.front())];
    if (std::find(lengths.begin(), lengths.end(), text.size()) == lengths.end()) lengths.push_back(text.size());
  }
  for (auto& lengths : state->control_lengths) std::sort(lengths.rbegin(), lengths.rend());

  const auto require_control = [&](const char* text) {
    const auto found = state->ids.find(text);
    if (found == state->ids.end() || !state->control[static_cast<size_t>(found->second)]) {
      throw Error(
          ErrorKind::kModel,
          fmt::format("{}: has no control token {}, which Gemma's chat template needs; use the tokenizer.model of a "
                      "Gemma model",
                      state->name, text));
    }
    return found->second;
  };
  state->bos = require_control("<bos>");
  state->eos = require_control("<eos>");
  state->start_of_turn = require_control("<start_of_turn>");
  state->end_of_turn = require_control("<end_of_turn>");
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].type == PieceType::kUnknown) state->unk = static_cast<int32_t>(id);
  }
  const auto pad = state->ids.find("<pad>");
  state->pad = pad == state->ids.end() ? 0 : pad->second;
  std::vector<int32_t> newline;
  state->append(*state->plain, "\n", newline);
  if (newline.size() != 1) {
    throw Error(
        ErrorKind::kModel,
        fmt::format("{}: a newline is not one piece, which Gemma's chat template needs; use the tokenizer.model of a "
                    "Gemma model",
                    state->name));
  }
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(state)));
}

int64_t Tokenizer::size() const { return static_cast<int64_t>(state_->model.pieces.size()); }
size_t Tokenizer::longest_piece_bytes() const { return state_->longest_piece; }
int32_t Tokenizer::bos_id() const { return state_->bos; }
int32_t Tokenizer::eos_id() const { return state_->eos; }
int32_t Tokenizer::pad_id() const { return state_->pad; }
int32_t Tokenizer::unk_id() const { return state_->unk; }
int32_t Tokenizer::start_of_turn_id() const { return state_->start_of_turn; }
int32_t Tokenizer::end_of_turn_id() const { return state_->end_of_turn; }
const std::string& Tokenizer::model_sha256() const { return state_->sha256; }

std::vector<int32_t> Tokenizer::encode_literal(std::string_view text) const {
  std::vector<int32_t> ids;
  // Without such text both vocabularies cut alike.
  state_->append(spells_control_token(text) ? state_->literal_processor() : *state_->plain, text, ids);
  return ids;
}

std::vector<int32_t> Tokenizer::encode_parsing_control_tokens(std::string_view text) const {
  std::vector<int32_t> ids;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = state_->control_token_at(text, at);
    if (length == 0) {
      ++at;
      continue;
    }
    state_->append(*state_->plain, text.substr(start, at - start), ids);
    ids.push_back(state_->ids.at(text.substr(at, length)));
    at += length;
    start = at;
  }
  state_->append(*state_->plain, text.substr(start), ids);
  return ids;
}

bool Tokenizer::spells_control_token(std::string_view text) const {
  for (size_t at = 0; at < text.size(); ++at) {
    if (state_->control_token_at(text, at) > 0) return true;
  }
  return false;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string raw;
  for (const int32_t id : ids) {
    require_id(id);
    if (id >= size()) continue;
    const Piece& piece = state_->model.pieces[static_cast<size_t>(id)];
    if (piece.type == PieceType::kByte) {
      raw.push_back(static_cast<char>(byte_of_piece(piece.text)));
      continue;
    }
    for (size_t at = 0; at < piece.text.size();) {
      if (piece.text.compare(at, kSpaceSymbol.size(), kSpaceSymbol) == 0) {
        raw.push_back(' ');
        at += kSpaceSymbol.size();
      } else {
        raw.push_back(piece.text[at++]);
      }
    }
  }
  // As sentencepiece does, each byte that is no part of a character becomes one U+FFFD.
  std::string text;
  std::string_view rest = raw;
  while (const std::optional<Utf8Problem> problem = find_utf8_problem(rest)) {
    text.append(rest.substr(0, problem->byte));
    text.append("\xef\xbf\xbd");
    rest.remove_prefix(problem->byte + 1);
  }
  text.append(rest);
  return text;
}

std::string Tokenizer::piece(int32_t id) const {
  require_id(id);
  return id >= size() ? "" : state_->model.pieces[static_cast<size_t>(id)].text;
}

std::optional<int32_t> Tokenizer::find_piece(std::string_view text) const {
  const auto found = state_->ids.find(text);
  if (found == state_->ids.end()) return std::nullopt;
  return found->second;
}

bool Tokenizer::is_control(int32_t id) const {
  return id >= 0 && id < size() && state_->control[static_cast<size_t>(id)];
}

}  // namespace gemma_sft
