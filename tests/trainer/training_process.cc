#include "tests/trainer/training_process.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <stdexcept>

#include "configs/error.h"
#include "trainer/run/run_observer.h"

namespace gemma_sft {
namespace {

// Tells the parent through a pipe, a line a message: what a killed process had said stays said.
class Reporter : public RunObserver {
 public:
  explicit Reporter(int descriptor) : descriptor_(descriptor) {}
  void say(const std::string& line) const { ::dprintf(descriptor_, "%s\n", line.c_str()); }
  void on_start(int64_t first, int64_t) override { say("start " + std::to_string(first)); }
  void on_checkpoint(const CheckpointRecord& record) override { say("saved " + std::to_string(record.step)); }

 private:
  int descriptor_;
};

std::string one_line(std::string text) {
  for (char& c : text) c = c == '\n' ? ' ' : c;
  return text;
}

// Was the file whose fsync failed synced again? A second try reports success for pages that the kernel dropped. Writing
// a new run_manifest.json, the last that a failed run does, is none.
bool was_synced_again(const std::vector<SystemCall>& calls, int64_t faulty) {
  const SystemCall& failed = calls[static_cast<size_t>(faulty)];
  for (size_t i = static_cast<size_t>(faulty) + 1; i < calls.size(); ++i) {
    if (calls[i].name == "open" && calls[i].path.filename() == ".run_manifest.json.tmp") return false;
    if (calls[i].name == "fsync" && calls[i].path == failed.path) return true;
  }
  return false;
}

int train(const TrainRequest& request, const CallFault& fault, int descriptor) {
  Reporter reporter(descriptor);
  const WatchedCalls watched(request.place.folder, fault);
  int exit_code = 0;
  try {
    run_training(request, real_file_system(), {&reporter});
  } catch (const Error& error) {
    reporter.say(std::string("error ") + (error.kind() == ErrorKind::kIo ? "io " : "other ") + one_line(error.what()));
    exit_code = 1;
  }
  const std::vector<SystemCall> calls = watched.calls();
  if (watched.has_struck()) {
    const SystemCall& faulty = calls[static_cast<size_t>(fault.call)];
    reporter.say("struck " + faulty.name + " " + faulty.path.filename().string());
    if (faulty.name == "fsync" && fault.action == CallAction::kFail && was_synced_again(calls, fault.call)) {
      reporter.say("synced again");
    }
  }
  reporter.say("calls " + std::to_string(calls.size()));
  return exit_code;
}

}  // namespace

int run_in_child(const std::function<int()>& work) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    int exit_code = 125;
    try {
      exit_code = work();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "child: %s\n", error.what());
    }
    ::_exit(exit_code);
  }
  int status = 0;
  if (::waitpid(child, &status, 0) != child) throw std::runtime_error("waitpid failed");
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

TrainingProcess train_in_child(const TrainRequest& request, CallFault fault) {
  std::FILE* const said = std::tmpfile();
  if (said == nullptr) throw std::runtime_error("no temporary file");
  const int code = run_in_child([&] { return train(request, fault, ::fileno(said)); });
  TrainingProcess ended;
  ended.exit_code = code > 128 ? -1 : code;
  ended.signal = code > 128 ? code - 128 : 0;
  std::rewind(said);
  char* line = nullptr;
  size_t room = 0;
  while (::getline(&line, &room, said) > 0) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    if (first == "start") words >> ended.first_step;
    if (first == "calls") words >> ended.calls;
    if (first == "synced") ended.synced_again = true;
    if (first == "saved") {
      ended.announced.emplace_back();
      words >> ended.announced.back();
    }
    if (first == "struck") {
      ended.struck = true;
      std::getline(words >> std::ws, ended.faulty_call);
    }
    if (first == "error") {
      words >> ended.error_kind;
      std::getline(words >> std::ws, ended.error);
    }
  }
  std::free(line);
  std::fclose(said);
  return ended;
}

}  // namespace gemma_sft
