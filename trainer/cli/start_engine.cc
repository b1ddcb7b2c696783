#include "trainer/cli/start_engine.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "configs/error.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

// A program of ours beside this one, or in ../libexec.
fs::path require_program(const std::string& name) {
  std::error_code error;
  const fs::path own = fs::read_symlink("/proc/self/exe", error);
  if (error) throw Error(ErrorKind::kIo, fmt::format("/proc/self/exe: cannot be read: {}", error.message()));
  const fs::path folder = own.parent_path();
  const fs::path places[] = {folder / name, folder.parent_path() / "libexec" / name};
  for (const fs::path& place : places) {
    if (access(place.c_str(), X_OK) == 0) return place;
  }
  throw Error(ErrorKind::kIo, fmt::format("{} not found: looked for {} and {}; build or install it (a build with "
                                          "GEMMA_SFT_TORCH=OFF has no engine)",
                                          name, places[0].string(), places[1].string()));
}

[[noreturn]] void become(const fs::path& program, const std::vector<std::string>& words) {
  std::vector<std::string> copies = {program.string()};
  copies.insert(copies.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& word : copies) argv.push_back(word.data());
  argv.push_back(nullptr);
  for (const int number : {SIGPIPE, SIGXFSZ}) signal(number, SIG_DFL);  // ignored signals would be inherited
  execv(program.c_str(), argv.data());
  throw Error(ErrorKind::kIo, fmt::format("{}: cannot be started: {}", program.string(), std::strerror(errno)));
}

// Where the dynamic loader or LibTorch's own start finds too little, the process dies without a word of ours.
void require_address_space() {
#ifndef GEMMA_SFT_HAS_CUDA
  constexpr rlim_t kNeeded = rlim_t{460} << 20;  // measured: LibTorch 2.11 for CPUs starts within 445 MB
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= kNeeded) return;
  throw Error(ErrorKind::kOutOfMemory,
              fmt::format("out of memory (start-up): this process is limited to {} bytes of address space (ulimit -v), "
                          "and loading LibTorch alone takes {}; raise the limit",
                          limit.rlim_cur, kNeeded));
#endif
}

}  // namespace

void start_engine(const std::vector<std::string>& words) {
  require_address_space();
  // OpenMP's threads wait for each other by spinning unless told otherwise. On a machine that other programs use too
  // the waiting thread keeps the working one from its core: five times slower with two cores and a load of nine.
  // Asleep at once costs more where nobody else wants the core: a step of Gemma 3 270M in bf16 took 2.65 s on two idle
  // cores, 2.1 s with a short spin ahead of the sleep. That cost 0 to 8 % beside two to four busy programs.
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) {
    setenv("OMP_WAIT_POLICY", "passive", /*overwrite=*/0);
    setenv("GOMP_SPINCOUNT", "20000", /*overwrite=*/0);
  }
  become(require_program("gemma-sft-engine"), words);
}

void start_jobs_program(const std::vector<std::string>& words) { become(require_program("gemma-sft-jobs"), words); }

void start_traces_program(const std::vector<std::string>& words) { become(require_program("gemma-sft-traces"), words); }

void start_front_end(const std::vector<std::string>& words) { become(require_program("gemma-sft"), words); }

}  // namespace gemma_sft
