// Text of a user, through the tokenizer and back. Gemma's tokenizer loses nothing but the difference of U+2581 and a
// space.
#include <string>

#include "data/files/utf8.h"
#include "data/text/tokenizer.h"
#include "tests/fuzz/fuzz_input.h"

namespace gemma_sft {
namespace {

std::string with_spaces(std::string text) {
  constexpr std::string_view kSymbol = "\xe2\x96\x81";
  for (size_t at = text.find(kSymbol); at != std::string::npos; at = text.find(kSymbol, at)) {
    text.replace(at, kSymbol.size(), " ");
  }
  return text;
}

}  // namespace
}  // namespace gemma_sft

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gemma_sft;
  static const auto tokenizer =
      Tokenizer::load(std::string(GEMMA_SFT_SOURCE_DIR) + "/tests/data/fixtures/tiny_tokenizer.model");
  const std::string text(text_of(data, size));
  if (find_utf8_problem(text)) return 0;  // the readers of rows let no such text through
  const auto literal = tokenizer->encode_literal(text);
  if (tokenizer->decode(literal) != with_spaces(text)) report_bug("decode(encode_literal) is another text");
  for (const int32_t id : literal) {
    if (tokenizer->is_control(id)) report_bug("encode_literal gave the control token " + tokenizer->piece(id));
  }
  const auto parsed = tokenizer->encode_parsing_control_tokens(text);
  if (!tokenizer->spells_control_token(text) && parsed != literal)
    report_bug("two readings of a text without controls");
  return 0;
}
