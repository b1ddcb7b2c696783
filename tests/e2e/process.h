// Starts a real program, waits for it with a limit, and tells what it wrote, how it ended and what it took.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace gemma_sft {

struct ProcessResult {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;      // the signal that ended it, or 0
  bool timed_out = false;
  std::string out;
  std::string err;
  double seconds = 0;
  double cpu_seconds = 0;  // user and system: what it takes on a machine of its own
  int64_t peak_memory_bytes = 0;

  // As a shell shows it: the exit code, or 128 + signal.
  int shell_code() const { return signal != 0 ? 128 + signal : exit_code; }
};

struct ProcessOptions {
  std::filesystem::path folder = {};  // where it runs; empty: here
  std::map<std::string, std::string> environment =
      {};  // on top of a small fixed one: PATH, HOME, LANG=C, OMP_NUM_THREADS=1
  std::optional<std::filesystem::path> stdout_to = {};  // instead of `out`
  double limit_seconds = 120;                           // then SIGKILL and timed_out
};

// One child process. Destroying it kills it.
class Process {
 public:
  // `words[0]` is the program's path. Throws std::runtime_error when it cannot be started.
  explicit Process(const std::vector<std::string>& words, const ProcessOptions& options = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t id() const { return id_; }
  void send(int signal);
  bool ends_within(double seconds);  // false: it still runs
  ProcessResult wait();              // once

 private:
  pid_t id_ = -1;
  std::filesystem::path out_, err_;
  double start_ = 0;
  double limit_seconds_;
};

ProcessResult run_process(const std::vector<std::string>& words, const ProcessOptions& options = {});

// The programs of this build.
std::string program(const std::string& name);  // "gemma-sft", "train_sft_tunix", "eval_generate"
// gemma-sft with these words.
ProcessResult gemma_sft_run(std::vector<std::string> words, const ProcessOptions& options = {});

}  // namespace gemma_sft
