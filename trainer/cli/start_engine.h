// The front end's last act for a command that needs LibTorch: it becomes the engine, with the same words.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace gemma_sft {

// gemma-sft-engine beside this executable, or in ../libexec. Throws Error(kIo) naming the places where it was looked
// for.
std::filesystem::path require_engine();

// Does not return. `words` begin with the command ("train"). Throws Error(kIo).
[[noreturn]] void start_engine(const std::vector<std::string>& words);

}  // namespace gemma_sft
