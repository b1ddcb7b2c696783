// tokenizer.model in the terms of Hugging Face's tokenizers library: the tokenizer.json and tokenizer_config.json that
// transformers reads beside the weights.
//
// On ordinary text transformers then gives the ids of Tokenizer::encode_parsing_control_tokens. What differs is listed
// in tests/data/text/tokenizer_json_test.cc and measured by tests/compat/tokenizer_check.py.
#pragma once

#include <string>

#include "data/text/sentencepiece_model.h"

namespace gemma_sft {

// Both texts end with a newline and are a pure function of the model.
std::string make_tokenizer_json(const SentencePieceModel& model);
std::string make_tokenizer_config_json(const SentencePieceModel& model);

// Gemma's chat template as Jinja, the one that tokenizer_config.json carries.
const char* gemma_jinja_template();

}  // namespace gemma_sft
