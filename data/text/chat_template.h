// Gemma's chat template, as published with the models:
//   <bos><start_of_turn>user\n{prompt}<end_of_turn>\n<start_of_turn>model\n{response}<end_of_turn>\n
// Prompts and responses are trimmed like Python's str.strip(). System text is folded into the first user turn as it
// stands (the published template does not trim it), two newlines between. Control tokens come from here only, never
// from the contents.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "data/records/example.h"
#include "data/text/tokenizer.h"

namespace gemma_sft {

enum class SegmentKind { kControl, kTemplateText, kUserText };

// A stretch of the rendered conversation. `trained`: its tokens are targets.
struct Segment {
  SegmentKind kind = SegmentKind::kUserText;
  std::string text;
  bool trained = false;
};

// The response, its end-of-turn and the newline after it are trained; in a conversation every model turn is.
// Throws Error(kData) when the turns do not alternate user/model, begin with user (after at most one system turn) and
// end with model, or when a prompt or response is empty once trimmed.
std::vector<Segment> render_for_training(const std::vector<Turn>& turns);

// As above, up to and including "<start_of_turn>model\n": what generation continues. The last turn must be the user's.
std::vector<Segment> render_for_generation(const std::vector<Turn>& turns);

// Python's str.strip(): U+0009-U+000D, U+001C-U+001F, U+0020, U+0085, U+00A0, U+1680, U+2000-U+200A, U+2028, U+2029,
// U+202F, U+205F, U+3000.
std::string_view strip_like_python(std::string_view text);

enum class ControlTokens { kLiteral, kParse };

// Segments -> ids and mask (id empty). Neighbouring text segments with equal `trained` are joined before tokenisation,
// so that merges across the template's own newline happen as in the reference, which tokenises the whole conversation
// as one string. Where `trained` changes between two texts, the text before is "model\n": no piece goes past a newline.
TokenizedExample encode_segments(const Tokenizer& tokenizer, const std::vector<Segment>& segments, ControlTokens mode);

// The whole way for one example (also passes format `tokens` through).
TokenizedExample tokenize_example(const Tokenizer& tokenizer, const Example& example, ControlTokens mode);

}  // namespace gemma_sft
