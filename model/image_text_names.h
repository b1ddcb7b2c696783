// What an image-text checkpoint calls the layers and weights of its text model; here their names start with "model.".
// No torch here.
#pragma once

#include <array>
#include <string>
#include <string_view>

namespace gemma_sft {

// What stands for "model.": in transformers since 4.52 and in PEFT's adapters; in the published files.
inline constexpr std::array<std::string_view, 2> kImageTextPrefixes = {"model.language_model.",
                                                                       "language_model.model."};

// "model.layers.0..." -> "model.language_model.layers.0...".
std::string image_text_name(const std::string& name);
// Either of them -> "model.layers.0..."; any other name as it is.
std::string text_name(const std::string& name);

}  // namespace gemma_sft
