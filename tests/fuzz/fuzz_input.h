// What every fuzz target shares. A target is one source file with LLVMFuzzerTestOneInput; libFuzzer drives it in
// run.sh, and replay_main.cc drives it over the corpus in every test run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace gemma_sft {

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Prints `what` and ends the process by a signal, which both drivers report as a crash of this input.
[[noreturn]] void report_bug(const std::string& what);

// Runs `read`; true when it accepts the input. The only way to refuse it is an Error that a user can be shown: of a
// kind other than kInternal, with a message as require_showable wants it. Everything else is a bug.
bool accepts(const std::function<void()>& read);

// A message is UTF-8 of at most 64 KiB, with no control characters but line ends: safe to print and to log.
void require_showable(const std::string& message);

// A folder of this process alone, in memory where the system has such a place; removed at the end of the process.
const std::filesystem::path& scratch_folder();
// Writes (and replaces) a file below it, with the folders on the way, and gives its path.
std::filesystem::path write_scratch(const std::string& name, std::string_view bytes);

}  // namespace gemma_sft
