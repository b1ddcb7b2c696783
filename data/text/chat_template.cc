#include "data/text/chat_template.h"

#include <fmt/format.h>

#include <cstddef>
#include <utility>

#include "configs/error.h"

namespace gemma_sft {

namespace {

constexpr const char* kBos = "<bos>";
constexpr const char* kStartOfTurn = "<start_of_turn>";
constexpr const char* kEndOfTurn = "<end_of_turn>";

// Bytes of the white-space character at the start of `text`, 0 when there is none.
size_t space_at_start(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned first = byte(0);
  if ((first >= 0x09 && first <= 0x0d) || (first >= 0x1c && first <= 0x20)) return 1;
  if (first == 0xc2 && (byte(1) == 0x85 || byte(1) == 0xa0)) return 2;  // U+0085, U+00A0
  if (first == 0xe1 && byte(1) == 0x9a && byte(2) == 0x80) return 3;    // U+1680
  if (first == 0xe2 && byte(1) == 0x80) {
    const unsigned last = byte(2);  // U+2000-U+200A, U+2028, U+2029, U+202F
    if ((last >= 0x80 && last <= 0x8a) || last == 0xa8 || last == 0xa9 || last == 0xaf) return 3;
  }
  if (first == 0xe2 && byte(1) == 0x81 && byte(2) == 0x9f) return 3;  // U+205F
  if (first == 0xe3 && byte(1) == 0x80 && byte(2) == 0x80) return 3;  // U+3000
  return 0;
}

// Bytes of the white-space character at the end of `text`, 0 when there is none.
size_t space_at_end(std::string_view text) {
  for (size_t size = 1; size <= 3 && size <= text.size(); ++size) {
    if (space_at_start(text.substr(text.size() - size)) == size) return size;
  }
  return 0;
}

const char* role_name(Role role) {
  switch (role) {
    case Role::kSystem: return "system";
    case Role::kUser: return "user";
    case Role::kModel: return "model";
  }
  return "?";
}

enum class Purpose { kTraining, kGeneration };

std::vector<Segment> render(const std::vector<Turn>& turns, Purpose purpose) {
  std::vector<Segment> segments;
  const auto control = [&](const char* token, bool trained) {
    segments.push_back({SegmentKind::kControl, token, trained});
  };
  const auto template_text = [&](const char* text, bool trained) {
    segments.push_back({SegmentKind::kTemplateText, text, trained});
  };

  control(kBos, false);
  const std::string* system = nullptr;
  Role expected = Role::kUser;
  for (size_t i = 0; i < turns.size(); ++i) {
    const Turn& turn = turns[i];
    if (i == 0 && turn.role == Role::kSystem) {
      system = &turn.text;
      continue;
    }
    if (turn.role != expected) {
      throw Error(ErrorKind::kData,
                  fmt::format("turn {}: expected the role {}, found {}; after at most one system turn, user and model "
                              "alternate, user first",
                              i + 1, role_name(expected), role_name(turn.role)));
    }
    const bool trained = purpose == Purpose::kTraining && turn.role == Role::kModel;
    const std::string_view text = strip_like_python(turn.text);
    if (text.empty() && purpose == Purpose::kTraining) {
      throw Error(ErrorKind::kData, fmt::format("turn {}: expected text from the {}, found nothing but white space",
                                                i + 1, role_name(turn.role)));
    }
    control(kStartOfTurn, false);
    template_text(turn.role == Role::kModel ? "model\n" : "user\n", false);
    if (system != nullptr) {
      segments.push_back({SegmentKind::kUserText, *system, false});
      template_text("\n\n", false);
      system = nullptr;
    }
    segments.push_back({SegmentKind::kUserText, std::string(text), trained});
    control(kEndOfTurn, trained);
    template_text("\n", trained);
    expected = turn.role == Role::kUser ? Role::kModel : Role::kUser;
  }
  const bool ends_with_model = expected == Role::kUser;
  if (turns.empty() || system != nullptr || ends_with_model != (purpose == Purpose::kTraining)) {
    throw Error(ErrorKind::kData, purpose == Purpose::kTraining
                                      ? "expected a last turn of the model, which is what is trained; found none"
                                      : "expected a last turn of the user, which the model answers; found none");
  }
  if (purpose == Purpose::kGeneration) {
    control(kStartOfTurn, false);
    template_text("model\n", false);
  }
  return segments;
}

int32_t control_id(const Tokenizer& tokenizer, std::string_view token) {
  if (token == kBos) return tokenizer.bos_id();
  if (token == kStartOfTurn) return tokenizer.start_of_turn_id();
  if (token == kEndOfTurn) return tokenizer.end_of_turn_id();
  throw Error(ErrorKind::kInternal, fmt::format("the chat template has no control token \"{}\"", token));
}

}  // namespace

std::string_view strip_like_python(std::string_view text) {
  while (const size_t size = space_at_start(text)) text.remove_prefix(size);
  while (const size_t size = space_at_end(text)) text.remove_suffix(size);
  return text;
}

std::vector<Segment> render_for_training(const std::vector<Turn>& turns) { return render(turns, Purpose::kTraining); }

std::vector<Segment> render_for_generation(const std::vector<Turn>& turns) {
  return render(turns, Purpose::kGeneration);
}

TokenizedExample encode_segments(const Tokenizer& tokenizer, const std::vector<Segment>& segments, ControlTokens mode) {
  TokenizedExample example;
  const auto append = [&](const std::vector<int32_t>& ids, bool trained) {
    example.input_ids.insert(example.input_ids.end(), ids.begin(), ids.end());
    example.loss_mask.resize(example.input_ids.size(), trained ? 1 : 0);
  };
  std::string joined;
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    if (segment.kind == SegmentKind::kControl) {
      append({control_id(tokenizer, segment.text)}, segment.trained);
      continue;
    }
    joined += segment.text;
    const bool goes_on = i + 1 < segments.size() && segments[i + 1].kind != SegmentKind::kControl &&
                         segments[i + 1].trained == segment.trained;
    if (goes_on) continue;
    append(mode == ControlTokens::kParse ? tokenizer.encode_parsing_control_tokens(joined)
                                         : tokenizer.encode_literal(joined),
           segment.trained);
    joined.clear();
  }
  return example;
}

TokenizedExample tokenize_example(const Tokenizer& tokenizer, const Example& example, ControlTokens mode) {
  TokenizedExample tokenized;
  if (example.tokens) {
    tokenized = *example.tokens;
  } else {
    tokenized = encode_segments(tokenizer, render_for_training(example.turns), mode);
  }
  tokenized.id = example.id;
  return tokenized;
}

}  // namespace gemma_sft
