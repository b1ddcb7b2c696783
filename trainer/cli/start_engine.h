// The front end's last act for a command that needs LibTorch or the network: it becomes the program that has them, with
// the same words.
#pragma once

#include <string>
#include <vector>

namespace gemma_sft {

// None of these returns. `words` begin with the command ("train"). The program lies beside this executable or in
// ../libexec; Error(kIo) names both places.
[[noreturn]] void start_engine(const std::vector<std::string>& words);
[[noreturn]] void start_jobs_program(const std::vector<std::string>& words);
[[noreturn]] void start_traces_program(const std::vector<std::string>& words);
// The way back: the traces program has written the rows of a run, and the command begins anew.
[[noreturn]] void start_front_end(const std::vector<std::string>& words);

}  // namespace gemma_sft
