#include "tests/e2e/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

fs::path make_temporary_file() {
  std::string name = (fs::temp_directory_path() / "gemma-sft-e2e-XXXXXX").string();
  const int descriptor = mkstemp(name.data());
  if (descriptor < 0) throw std::runtime_error("mkstemp: " + std::string(std::strerror(errno)));
  close(descriptor);
  return name;
}

std::string take_file(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(stream), {}};
  fs::remove(path);
  return text;
}

std::string from_environment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

void check(int error, const std::string& what) {
  if (error != 0) throw std::runtime_error(what + ": " + std::strerror(error));
}

}  // namespace

Process::Process(const std::vector<std::string>& words, const ProcessOptions& options)
    : out_(options.stdout_to ? *options.stdout_to : make_temporary_file()),
      err_(make_temporary_file()),
      limit_seconds_(options.limit_seconds) {
  std::map<std::string, std::string> environment = {{"PATH", from_environment("PATH", "/usr/bin:/bin")},
                                                    {"HOME", from_environment("HOME", "/")},
                                                    {"LANG", "C"},
                                                    {"OMP_NUM_THREADS", "1"}};
  for (const auto& [name, value] : options.environment) environment[name] = value;
  std::vector<std::string> assignments;
  for (const auto& [name, value] : environment) assignments.push_back(name + "=" + value);
  const auto pointers = [](const std::vector<std::string>& texts) {
    std::vector<char*> list;
    for (const std::string& text : texts) list.push_back(const_cast<char*>(text.c_str()));
    list.push_back(nullptr);
    return list;
  };
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, out_.c_str(), O_WRONLY | O_TRUNC, 0);
  posix_spawn_file_actions_addopen(&actions, 2, err_.c_str(), O_WRONLY | O_TRUNC, 0);
  if (!options.folder.empty()) posix_spawn_file_actions_addchdir_np(&actions, options.folder.c_str());
  start_ = now();
  const int error =
      posix_spawn(&id_, words.at(0).c_str(), &actions, nullptr, pointers(words).data(), pointers(assignments).data());
  posix_spawn_file_actions_destroy(&actions);
  check(error, words[0]);
  if (options.stdout_to) out_.clear();
}

Process::~Process() {
  if (id_ > 0) {
    kill(id_, SIGKILL);
    waitpid(id_, nullptr, 0);
    fs::remove(err_);
    if (!out_.empty()) fs::remove(out_);
  }
}

void Process::send(int signal) { kill(id_, signal); }

// Looks often at first and less often later, so that short runs are timed well and long ones cost nothing.
bool Process::ends_within(double seconds) {
  const double start = now();
  for (;;) {
    siginfo_t info{};
    if (waitid(P_PID, static_cast<id_t>(id_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == id_)
      return true;
    const double waited = now() - start;
    if (waited >= seconds) return false;
    const double pause = std::min({0.0001 + waited / 50, 0.01, seconds - waited});
    std::this_thread::sleep_for(std::chrono::duration<double>(pause));
  }
}

ProcessResult Process::wait() {
  ProcessResult result;
  result.timed_out = !ends_within(std::max(0.0, start_ + limit_seconds_ - now()));
  if (result.timed_out) kill(id_, SIGKILL);
  int status = 0;
  rusage usage{};
  wait4(id_, &status, 0, &usage);
  id_ = -1;
  result.seconds = now() - start_;
  const auto seconds_of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  result.cpu_seconds = seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
  result.peak_memory_bytes = static_cast<int64_t>(usage.ru_maxrss) * 1024;
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  if (!out_.empty()) result.out = take_file(out_);
  result.err = take_file(err_);
  return result;
}

ProcessResult run_process(const std::vector<std::string>& words, const ProcessOptions& options) {
  return Process(words, options).wait();
}

std::string program(const std::string& name) { return std::string(GEMMA_SFT_BIN_DIR) + "/" + name; }

ProcessResult gemma_sft_run(std::vector<std::string> words, const ProcessOptions& options) {
  words.insert(words.begin(), program("gemma-sft"));
  return run_process(words, options);
}

}  // namespace gemma_sft
