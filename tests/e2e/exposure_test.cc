// rel-S9: what a training run shows to others: no socket, no child process, no file that the umask closes.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/e2e/workspace.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> open_files(pid_t process) {
  std::vector<std::string> targets;
  std::error_code error;
  const fs::path folder = "/proc/" + std::to_string(process) + "/fd";
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code gone;
    targets.push_back(fs::read_symlink(entry->path(), gone).string());
  }
  return targets;
}

std::string children_of(pid_t process) {
  std::string all;
  std::error_code error;
  const fs::path folder = "/proc/" + std::to_string(process) + "/task";
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::ifstream stream(entry->path() / "children");
    all.append(std::istreambuf_iterator<char>(stream), {});
  }
  return all;
}

TEST(Exposure, ARunOpensNoSocketAndStartsNoProcess) {
  const Workspace work;
  Process process(work.train_words("run", {"--set", "training.num_epochs=5"}), work.options());
  int looks = 0;
  int with_files = 0;
  while (!process.ends_within(0.005)) {
    ++looks;
    const auto files = open_files(process.id());
    with_files += files.empty() ? 0 : 1;
    for (const std::string& file : files) ASSERT_FALSE(file.starts_with("socket:")) << file;
    ASSERT_EQ(children_of(process.id()), "");
  }
  EXPECT_EQ(process.wait().exit_code, 0);
  EXPECT_GT(with_files, 20) << "of " << looks << " looks";
}

TEST(Exposure, FilesAreAsOpenAsTheUmaskSays) {
  const Workspace work;
  for (const auto& [mask, closed] : {std::pair{"077", 0077}, {"022", 0022}}) {
    const std::string run = std::string("run-") + mask;
    std::string command = std::string("umask ") + mask + "; exec";
    for (const std::string& word : work.train_words(run, {"--set", "training.max_steps=6"}))
      command += " '" + word + "'";
    const ProcessResult result = run_process({"/bin/sh", "-c", command}, work.options());
    ASSERT_EQ(result.exit_code, 0) << result.err;
    int entries = 0;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(work / run)) {
      struct stat status {};
      ASSERT_EQ(::lstat(entry.path().c_str(), &status), 0);
      EXPECT_EQ(status.st_mode & static_cast<mode_t>(closed), 0u) << entry.path();
      EXPECT_EQ(status.st_mode & 0111u, entry.is_directory() ? 0111u & ~static_cast<mode_t>(closed) : 0u)
          << entry.path();
      ++entries;
    }
    EXPECT_GT(entries, 20);
  }
}

}  // namespace
}  // namespace gemma_sft
