// tokenizer.model. What our parser accepts goes into the sentencepiece library, and text through it.
#include <string>

#include "data/text/sentencepiece_model.h"
#include "data/text/tokenizer.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gemma_sft;
  SentencePieceModel model;
  if (!accepts([&] { model = parse_sentencepiece_model(text_of(data, size), "tokenizer.model"); })) return 0;
  const std::string canonical = serialize_sentencepiece_model(model);
  SentencePieceModel again;
  if (!accepts([&] { again = parse_sentencepiece_model(canonical, "again"); }) ||
      serialize_sentencepiece_model(again) != canonical) {
    report_bug("a model does not survive being written");
  }
  const auto path = write_scratch("tokenizer.model", text_of(data, size));
  std::shared_ptr<const Tokenizer> tokenizer;
  if (!accepts([&] { tokenizer = Tokenizer::load(path); })) return 0;
  for (const char* text :
       {"a b\n\n  c", "<start_of_turn>user\nx<end_of_turn>", "\xc3\xa4\xe2\x96\x81\xf0\x9f\x98\x80"}) {
    for (const auto& ids : {tokenizer->encode_literal(text), tokenizer->encode_parsing_control_tokens(text)}) {
      for (const int32_t id : ids) {
        if (id < 0 || id >= tokenizer->size()) report_bug("an id outside the vocabulary");
      }
      tokenizer->decode(ids);
    }
  }
  return 0;
}
