#include "data/text/tokenizer_trainer.h"

#include <fmt/format.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/utf8.h"
#include "data/text/sentencepiece_model.h"

namespace gemma_sft {

namespace {

constexpr size_t kMaxWordBytes = 10'000;  // the library keeps positions inside a word in 16 bits
constexpr int kLongestRun = 31;
constexpr const char* kSpaceSymbol = "\xe2\x96\x81";          // U+2581
constexpr std::string_view kLibraryUnknown = "\xe2\x96\x85";  // U+2585: the library passes over lines that hold it

std::vector<std::string> user_defined_pieces(const TokenizerTraining& training) {
  std::vector<std::string> pieces = {"<mask>", "[multimodal]"};
  for (int64_t i = 0; i < training.unused_pieces; ++i) pieces.push_back(fmt::format("<unused{}>", i));
  pieces.insert(pieces.end(), {"<start_of_turn>", "<end_of_turn>"});
  for (int length = 1; length <= kLongestRun; ++length) pieces.emplace_back(static_cast<size_t>(length), '\n');
  for (int length = 2; length <= kLongestRun; ++length) {
    std::string run;
    for (int i = 0; i < length; ++i) run += kSpaceSymbol;
    pieces.push_back(run);
  }
  if (training.html_tags) {
    for (const char* tag :
         {"table", "caption", "thead",      "tbody",  "tfoot", "tr", "th", "td", "h1", "h2",  "h3",  "h4",
          "h5",    "h6",      "blockquote", "strong", "em",    "b",  "i",  "u",  "s",  "sub", "sup", "code"}) {
      pieces.push_back(fmt::format("<{}>", tag));
      pieces.push_back(fmt::format("</{}>", tag));
    }
  }
  return pieces;
}

// Appends the lines of `text` in the form that the library takes all of.
void append_lines(std::string_view text, const std::string& name, std::vector<std::string>& lines) {
  if (const auto problem = find_utf8_problem(text)) {
    throw Error(ErrorKind::kData, fmt::format("{}: expected UTF-8 at byte {}, found {}; save the corpus as UTF-8", name,
                                              problem->byte, problem->found));
  }
  size_t word = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    word = text[at] == ' ' || text[at] == '\n' ? 0 : word + 1;
    if (word > kMaxWordBytes) {
      throw Error(ErrorKind::kData,
                  fmt::format("{}: a word of more than {} bytes ends after byte {}; take it out of the corpus", name,
                              kMaxWordBytes, at));
    }
  }
  const auto next_end = [&](size_t from) { return std::min(text.find('\n', from), text.find(kLibraryUnknown, from)); };
  for (size_t from = 0; from < text.size();) {
    const size_t end = std::min(next_end(from), text.size());
    if (end > from) lines.emplace_back(text.substr(from, end - from));
    from = end + (end < text.size() && text[end] != '\n' ? kLibraryUnknown.size() : 1);
  }
}

std::string train_on_lines(const std::vector<std::string>& lines, const TokenizerTraining& training) {
  if (lines.empty()) throw Error(ErrorKind::kData, "the tokenizer's corpus holds no text; give a file with some");
  std::string symbols;
  const std::vector<std::string> pieces = user_defined_pieces(training);
  for (const std::string& piece : pieces) symbols += (symbols.empty() ? "" : ",") + piece;
  size_t longest = 0;
  for (const std::string& line : lines) longest = std::max(longest, line.size());
  const auto fixed = static_cast<int64_t>(pieces.size() + 4 + 256);
  if (training.vocab_size <= fixed || training.vocab_size > static_cast<int64_t>(SentencePieceModel::kMaxPieces)) {
    throw Error(ErrorKind::kUsage,
                fmt::format("a vocabulary of {} pieces: expected more than {}, which the special pieces and "
                            "the 256 bytes take, and at most {}",
                            training.vocab_size, fixed, SentencePieceModel::kMaxPieces));
  }
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(training.vocab_size)},
      {"hard_vocab_limit", "false"},  // checked below, with a better message
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"split_digits", "true"},
      {"character_coverage", fmt::format("{}", training.character_coverage)},
      {"max_sentence_length", std::to_string(longest + 1)},
      {"pad_id", "0"},
      {"eos_id", "1"},
      {"bos_id", "2"},
      {"unk_id", "3"},
      {"pad_piece", "<pad>"},
      {"eos_piece", "<eos>"},
      {"bos_piece", "<bos>"},
      {"unk_piece", "<unk>"},
      {"user_defined_symbols", symbols},
      {"num_threads", "1"},
      {"minloglevel", "3"},  // the library writes to stderr otherwise
  };
  std::string trained;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, lines, &trained);
  if (!status.ok()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("training a tokenizer of {} pieces failed: {}", training.vocab_size, status.message()));
  }
  const SentencePieceModel model = parse_sentencepiece_model(trained, "the trained tokenizer");
  if (static_cast<int64_t>(model.pieces.size()) != training.vocab_size) {
    throw Error(ErrorKind::kUsage,
                fmt::format("a vocabulary of {} pieces: the corpus yields only {}; ask for at most as many, or "
                            "give more text",
                            training.vocab_size, model.pieces.size()));
  }
  return serialize_sentencepiece_model(model);
}

}  // namespace

std::string train_tokenizer(const std::vector<std::string>& texts, const TokenizerTraining& training) {
  std::vector<std::string> lines;
  for (size_t i = 0; i < texts.size(); ++i) append_lines(texts[i], fmt::format("text {} of the corpus", i + 1), lines);
  return train_on_lines(lines, training);
}

std::string train_tokenizer(const std::vector<std::filesystem::path>& files, const TokenizerTraining& training) {
  std::vector<std::string> lines;
  for (const std::filesystem::path& file : files) append_lines(read_file(file), file.string(), lines);
  return train_on_lines(lines, training);
}

}  // namespace gemma_sft
