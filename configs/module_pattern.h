// What an entry of lora.target_modules means: a linear layer's name, its module path, or a pattern.
#pragma once

#include <string>
#include <string_view>

namespace gemma_sft {

// True when the module at `path` ("model.layers.3.self_attn.q_proj") is meant by `pattern`: it equals the pattern, ends
// with "." + pattern, or matches it as a glob (*, ?) over the whole path.
bool matches_target(std::string_view path, std::string_view pattern);

// What is wrong with a pattern that means no linear layer of any Gemma, with the remedy; empty: it may mean one.
// Whether the model at hand has the layer shows when the model is read.
std::string target_problem(const std::string& pattern);

}  // namespace gemma_sft
