// R9: run folders with every kind of folder that is no checkpoint of the run among those that are. The newest complete
// one by its manifest is chosen, whatever times and names say, and every rejected one is listed with its reason.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <random>

#include "tests/testing/suite_count.h"
#include "tests/testing/system_calls.h"
#include "tests/testing/temp_dir.h"
#include "tests/trainer/checkpoint/saved_checkpoints.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

void replace_in(const fs::path& file, const std::string& from, const std::string& to) {
  std::string text = read_file(file);
  text.replace(text.find(from), from.size(), to);
  const auto written = real_file_system().create(file);
  written->append(text);
  written->close();
}

// A kind of folder named checkpoint-<step> that must not be chosen, made from a good one, and what the reason says.
struct Bad {
  const char* name;
  std::string reason;
  void (*make)(const fs::path& folder);
};

const Bad kBad[] = {
    {"partial", "has no manifest.json", [](const fs::path& folder) { fs::remove(folder / "manifest.json"); }},
    {"file missing", "model.safetensors: is missing",
     [](const fs::path& folder) { fs::remove(folder / "model.safetensors"); }},
    {"corrupt", "model.safetensors: SHA-256 is",
     [](const fs::path& folder) { replace_in(folder / "model.safetensors", "w", "v"); }},
    {"manifest cut", "manifest.json: ", [](const fs::path& folder) { fs::resize_file(folder / "manifest.json", 40); }},
    {"other run", "belongs to run other, not to run r",
     [](const fs::path& folder) {
       replace_in(folder / "manifest.json", "\"run_id\": \"r\"", "\"run_id\": \"other\"");
     }},
    {"newer format", "format version 2, this program reads version 1",
     [](const fs::path& folder) { replace_in(folder / "manifest.json", "\"version\": 1", "\"version\": 2"); }},
    {"another step's name", "the folder's name does not",
     [](const fs::path& folder) { replace_in(folder / "manifest.json", "\"step\": ", "\"step\": 7"); }},
    {"symbolic link", "is a symbolic link, not a folder",
     [](const fs::path& folder) {
       const fs::path target = folder.parent_path() / ("target-of-" + folder.filename().string());
       fs::rename(folder, target);
       fs::create_directory_symlink(target, folder);
     }},
    {"a file", "is not a folder",
     [](const fs::path& folder) {
       fs::remove_all(folder);
       real_file_system().create(folder)->close();
     }},
    {"manifest is a pipe", "manifest.json: is not a plain file",
     [](const fs::path& folder) {
       fs::remove(folder / "manifest.json");
       ::mkfifo((folder / "manifest.json").c_str(), 0600);
     }},
    {"empty", "has no manifest.json", [](const fs::path& folder) {
       fs::remove_all(folder);
       fs::create_directory(folder);
     }}};

TEST(Choosing, the_newest_complete_checkpoint_of_the_run_is_taken_and_the_others_are_listed_with_reasons) {
  SuiteCount count("R9 run folders with every kind of folder in them");
  std::mt19937_64 random(suite_seed());
  const int64_t folders = case_count(150, 2000);
  for (int64_t i = 0; i < folders; ++i) {
    const TempDir dir{memory_folder()};
    CheckpointFolders made(dir.path(), "r", 99, real_file_system());
    std::vector<int64_t> good;
    std::map<int64_t, const Bad*> bad;
    const int64_t checkpoints = 1 + static_cast<int64_t>(random() % 6);
    for (int64_t step = 1; static_cast<int64_t>(good.size() + bad.size()) < checkpoints; step *= 1 + random() % 5) {
      ++step;
      save_checkpoint(made, step, real_file_system());
      if (random() % 2 == 0) {
        good.push_back(step);
        continue;
      }
      const Bad& kind = kBad[random() % std::size(kBad)];
      kind.make(made.folder(step));
      bad[step] = &kind;
    }
    for (const fs::directory_entry& entry : fs::directory_iterator(dir.path())) {
      if (entry.is_symlink()) continue;
      fs::last_write_time(entry.path(), fs::file_time_type::clock::now() - std::chrono::hours(random() % 9000));
    }
    std::string problem;
    const std::vector<CheckpointVerdict> verdicts = find_checkpoints(dir.path(), "r");
    if (verdicts.size() != good.size() + bad.size()) problem = "not every folder is listed";
    std::vector<int64_t> found;
    for (const CheckpointVerdict& verdict : verdicts) {
      if (verdict.manifest) {
        found.push_back(verdict.manifest->step);
        continue;
      }
      const auto kind = bad.find(step_of_checkpoint_name(verdict.folder.filename().string()).value_or(-1));
      if (kind == bad.end() || verdict.problem.find(kind->second->reason) == std::string::npos) {
        problem = verdict.folder.string() + ": " + verdict.problem;
      }
    }
    std::reverse(good.begin(), good.end());
    if (found != good) problem += fmt::format("; {} complete ones instead of {}", found.size(), good.size());
    EXPECT_TRUE(count.add(problem.empty())) << "folder " << i << " of seed " << suite_seed() << ": " << problem;
  }
}

TEST(Choosing, a_checkpoint_that_cannot_be_read_is_rejected_with_the_errno_and_the_one_before_it_is_taken) {
  const TempDir dir{memory_folder()};
  CheckpointFolders made(dir.path(), "r", 99, real_file_system());
  save_checkpoint(made, 3, real_file_system());
  save_checkpoint(made, 6, real_file_system());
  int64_t opened = 0;
  bool struck = true;
  for (int64_t call = 0; struck; ++call) {
    std::vector<CheckpointVerdict> verdicts;
    bool opens = false;
    {
      const WatchedCalls watched(dir / "checkpoint-6",
                                 {.call = call, .action = CallAction::kFail, .error_number = EACCES});
      verdicts = find_checkpoints(dir.path(), "r");
      struck = watched.has_struck();
      opens = struck && watched.calls()[static_cast<size_t>(call)].name == "open";
    }
    ASSERT_EQ(verdicts.size(), 2u);
    EXPECT_EQ(verdicts[0].manifest.value().step, opens ? 3 : 6) << "call " << call;
    if (!opens) continue;
    ++opened;
    EXPECT_NE(verdicts[1].problem.find("Permission denied"), std::string::npos) << verdicts[1].problem;
  }
  EXPECT_GE(opened, 2);  // manifest.json and model.safetensors at least
}

}  // namespace
}  // namespace gemma_sft
