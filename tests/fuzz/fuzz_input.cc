#include "tests/fuzz/fuzz_input.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <system_error>

#include "configs/error.h"
#include "data/files/utf8.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

class ScratchFolder {
 public:
  ScratchFolder() {
    std::error_code error;
    const fs::path parent = fs::is_directory("/dev/shm", error) ? "/dev/shm" : fs::temp_directory_path();
    std::string name = (parent / "gemma-sft-fuzz-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) report_bug("mkdtemp " + name);
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace

void report_bug(const std::string& what) {
  std::fprintf(stderr, "fuzz: %s\n", what.c_str());
  std::abort();
}

void require_showable(const std::string& message) {
  constexpr size_t kMostBytes = 64 << 10;
  if (message.size() > kMostBytes) report_bug("a message of " + std::to_string(message.size()) + " bytes");
  if (find_utf8_problem(message)) report_bug("a message that is not UTF-8: " + message);
  for (const char c : message) {
    const bool is_control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    if (is_control && c != '\n') report_bug("a message with a control character: " + message);
  }
}

bool accepts(const std::function<void()>& read) {
  try {
    read();
    return true;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal) report_bug(std::string("an internal error: ") + error.what());
    require_showable(error.what());
    return false;
  } catch (const std::exception& error) {
    report_bug(std::string("not an Error: ") + error.what());
  }
}

const fs::path& scratch_folder() {
  static const ScratchFolder folder;
  return folder.path();
}

fs::path write_scratch(const std::string& name, std::string_view bytes) {
  const fs::path path = scratch_folder() / name;
  int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) {
    fs::create_directories(path.parent_path());
    file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  }
  if (file < 0 || write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()) || close(file) != 0) {
    report_bug("cannot write " + path.string());
  }
  return path;
}

}  // namespace gemma_sft
