#include "trainer/checkpoint/checkpoint_folders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "configs/error.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/hooked_file_system.h"
#include "tests/testing/temp_dir.h"
#include "tests/trainer/checkpoint/saved_checkpoints.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(CheckpointFoldersTest, a_published_checkpoint_verifies_and_leaves_nothing_else) {
  const TempDir files;
  CheckpointFolders folders(files.path(), "r", 2, real_file_system());
  folders.open();
  save_checkpoint(folders, 4, real_file_system());
  EXPECT_THAT(files.list(),
              ElementsAre("checkpoint-4/", "checkpoint-4/manifest.json", "checkpoint-4/model.safetensors"));
  EXPECT_THAT(complete_steps(files.path()), ElementsAre(4));
  EXPECT_THAT(folders.steps(), ElementsAre(4));
}

TEST(CheckpointFoldersTest, everything_is_synced_before_the_name_appears_and_the_name_before_it_counts) {
  const TempDir files;
  FailingFileSystem watched;
  CheckpointFolders folders(files.path(), "r", 2, watched);
  save_checkpoint(folders, 4, watched);
  std::vector<std::string> journal = watched.journal();
  const auto temporary = std::find_if(journal.begin(), journal.end(),
                                      [](const std::string& call) { return call.starts_with("sync_directory"); });
  ASSERT_NE(temporary, journal.end());
  const std::vector<std::string> tail(temporary - 4, journal.end());
  EXPECT_THAT(tail, ElementsAre("create manifest.json", "append manifest.json", "sync manifest.json",
                                "close manifest.json", HasSubstr("sync_directory .checkpoint-4"), "rename checkpoint-4",
                                HasSubstr("sync_directory ")));
  EXPECT_EQ(std::count(journal.begin(), journal.end(), "sync model.safetensors"), 1);
}

TEST(CheckpointFoldersTest, the_newest_and_the_best_stay) {
  const TempDir files;
  CheckpointFolders folders(files.path(), "r", 2, real_file_system());
  folders.open();
  for (int64_t step = 1; step <= 6; ++step) {
    save_checkpoint(folders, step, real_file_system());
    folders.rotate(step, step >= 3 ? std::optional<int64_t>(3) : std::nullopt);
  }
  EXPECT_THAT(complete_steps(files.path()), ElementsAre(3, 5, 6));
  folders.rotate(6, 5);
  EXPECT_THAT(complete_steps(files.path()), ElementsAre(5, 6));
}

TEST(CheckpointFoldersTest, what_was_removed_to_make_room_is_not_counted) {
  const TempDir files;
  CheckpointFolders folders(files.path(), "r", 2, real_file_system());
  for (int64_t step = 1; step <= 4; ++step) save_checkpoint(folders, step, real_file_system());
  for (const char* name : {"checkpoint-1", "checkpoint-3"}) std::filesystem::remove_all(files / name);
  folders.rotate(4, std::nullopt);
  EXPECT_THAT(complete_steps(files.path()), ElementsAre(2, 4));
}

TEST(CheckpointFoldersTest, a_left_over_that_cannot_be_deleted_stops_no_run) {
  struct Protected : HookedFileSystem {
    Protected() : HookedFileSystem([](const std::filesystem::path&) {}) {}
    void remove_tree(const std::filesystem::path& path) override { throw file_error("remove", path, error); }
    int error = EACCES;
  } files_of_others;
  const TempDir files;
  CheckpointFolders first(files.path(), "r", 2, real_file_system());
  save_checkpoint(first, 1, real_file_system());
  files.write(".checkpoint-5.old-1/model.safetensors", "");
  CheckpointFolders folders(files.path(), "r", 2, files_of_others);
  folders.open();
  EXPECT_THAT(folders.steps(), ElementsAre(1));
  files_of_others.error = EIO;
  EXPECT_THROW(folders.open(), Error);
}

TEST(CheckpointFoldersTest, a_run_taken_back_to_an_earlier_step_supersedes_what_came_after) {
  const TempDir files;
  CheckpointFolders folders(files.path(), "r", 1, real_file_system());
  for (int64_t step : {500, 600, 700}) save_checkpoint(folders, step, real_file_system());
  CheckpointFolders again(files.path(), "r", 1, real_file_system());
  again.open();
  save_checkpoint(again, 100, real_file_system());
  again.rotate(100, std::nullopt);
  EXPECT_THAT(complete_steps(files.path()), ElementsAre(100));
}

TEST(CheckpointFoldersTest, verifying_ends_where_it_is_told_to) {
  const TempDir files;
  CheckpointFolders folders(files.path(), "r", 2, real_file_system());
  for (int64_t step : {1, 2}) save_checkpoint(folders, step, real_file_system());
  struct Stop {};
  int blocks = 0;
  EXPECT_THROW(folders.open([&] {
    if (++blocks == 2) throw Stop();
  }),
               Stop);
  EXPECT_EQ(blocks, 2);
  folders.open([] {});
  EXPECT_THAT(folders.steps(), ElementsAre(1, 2));
}

TEST(CheckpointFoldersTest, only_what_this_run_made_is_deleted) {
  const TempDir files;
  CheckpointFolders other(files.path(), "other", 5, real_file_system());
  save_checkpoint(other, 1, real_file_system());
  files.write("checkpoint-2/notes.txt", "mine");
  files.write("my-checkpoint-3/manifest.json", "{}");
  CheckpointFolders folders(files.path(), "r", 1, real_file_system());
  folders.open();
  EXPECT_EQ(folders.rejected().size(), 2u);
  for (int64_t step : {10, 11, 12}) {
    save_checkpoint(folders, step, real_file_system());
    folders.rotate(step, std::nullopt);
  }
  EXPECT_THAT(complete_steps(files.path()), ElementsAre(12));
  EXPECT_THAT(complete_steps(files.path(), "other"), ElementsAre(1));
  EXPECT_TRUE(fs::exists(files / "checkpoint-2/notes.txt"));
  EXPECT_TRUE(fs::exists(files / "my-checkpoint-3/manifest.json"));
}

TEST(CheckpointFoldersTest, what_has_a_checkpoint_s_name_and_is_not_this_run_s_is_set_aside_and_kept) {
  const TempDir files;
  CheckpointFolders other(files.path(), "other", 5, real_file_system());
  save_checkpoint(other, 1, real_file_system(), "theirs");
  files.write("checkpoint-2/trainer_state.json", "{}");
  files.write("checkpoint-2.aside-1", "in the way");
  files.write(".checkpoint-60.keep", "mine");
  files.write(".checkpoint-60.new-7/model.safetensors", "half");
  CheckpointFolders folders(files.path(), "r", 5, real_file_system());
  folders.open();
  for (int64_t step : {1, 2}) save_checkpoint(folders, step, real_file_system());
  EXPECT_THAT(complete_steps(files.path()), ElementsAre(1, 2));
  EXPECT_EQ(read_file(files / "checkpoint-1.aside-1/model.safetensors"), "theirs");
  EXPECT_EQ(read_file(files / "checkpoint-2.aside-2/trainer_state.json"), "{}");
  EXPECT_EQ(read_file(files / ".checkpoint-60.keep"), "mine");
  EXPECT_FALSE(fs::exists(files / ".checkpoint-60.new-7"));
  folders.open();  // and is no checkpoint
  EXPECT_THAT(folders.steps(), ElementsAre(1, 2));
  EXPECT_THAT(folders.rejected(), IsEmpty());
}

TEST(CheckpointFoldersTest, what_came_after_a_step_is_deleted_the_newest_first) {
  const TempDir files;
  CheckpointFolders folders(files.path(), "r", 5, real_file_system());
  for (int64_t step : {1, 2, 3, 4}) save_checkpoint(folders, step, real_file_system());
  FailingFileSystem failing({.call = 5, .kind = FaultKind::kFromNowOn});  // within the second folder
  CheckpointFolders again(files.path(), "r", 5, failing);
  again.open();
  EXPECT_THROW(again.remove_after(1), Error);
  folders.open();
  EXPECT_EQ(*folders.steps().begin(), 1);
  EXPECT_FALSE(folders.steps().contains(4));
  EXPECT_TRUE(folders.steps().contains(2));
  folders.remove_after(1);
  EXPECT_THAT(complete_steps(files.path()), ElementsAre(1));
}

TEST(CheckpointFoldersTest, saving_a_step_again_replaces_a_broken_or_different_one_and_keeps_an_equal_one) {
  const TempDir files;
  CheckpointFolders folders(files.path(), "r", 2, real_file_system());
  save_checkpoint(folders, 1, real_file_system(), "old");
  save_checkpoint(folders, 1, real_file_system(), "new");
  EXPECT_EQ(read_file(files / "checkpoint-1/model.safetensors"), "new");
  const auto written = fs::last_write_time(files / "checkpoint-1/manifest.json");
  save_checkpoint(folders, 1, real_file_system(), "new");
  EXPECT_EQ(fs::last_write_time(files / "checkpoint-1/manifest.json"), written);
  files.write("checkpoint-1/model.safetensors", "bad");
  folders.open();
  EXPECT_THAT(folders.steps(), IsEmpty());
  save_checkpoint(folders, 1, real_file_system(), "new");
  EXPECT_THAT(complete_steps(files.path()), ElementsAre(1));
  EXPECT_THAT(files.list(),
              ElementsAre("checkpoint-1/", "checkpoint-1/manifest.json", "checkpoint-1/model.safetensors"));
}

TEST(CheckpointFoldersTest, replacing_a_checkpoint_leaves_the_old_one_or_the_new_one_wherever_it_is_interrupted) {
  for (const FaultKind kind : {FaultKind::kCrash, FaultKind::kOnce, FaultKind::kFromNowOn}) {
    int64_t call = 0;
    for (bool struck = true; struck; ++call) {
      const TempDir files{memory_folder()};
      CheckpointFolders folders(files.path(), "r", 1, real_file_system());
      save_checkpoint(folders, 1, real_file_system(), "old");
      FailingFileSystem failing({.call = call, .kind = kind});
      CheckpointFolders again(files.path(), "r", 1, failing);
      try {
        save_checkpoint(again, 1, failing, "new");
      } catch (const SimulatedCrash&) {
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kIo);
      }
      struck = failing.has_failed();
      folders.open();
      EXPECT_THAT(folders.steps(), ElementsAre(1)) << "call " << call;
      EXPECT_THAT(files.list(),
                  ElementsAre("checkpoint-1/", "checkpoint-1/manifest.json", "checkpoint-1/model.safetensors"))
          << "call " << call;
      if (!struck) {
        EXPECT_EQ(read_file(files / "checkpoint-1/model.safetensors"), "new");
      }
    }
    EXPECT_GT(call, 14);
  }
}

// Three saves with rotation, keeping one; `announced` is what publish returned for.
void save_three(const fs::path& folder, FileSystem& files, std::vector<int64_t>& announced) {
  CheckpointFolders folders(folder, "r", 1, files);
  folders.open();
  for (int64_t step = 1; step <= 3; ++step) {
    save_checkpoint(folders, step, files, "weights of " + std::to_string(step));
    announced.push_back(step);
    folders.rotate(step, std::nullopt);
  }
}

TEST(CheckpointFoldersTest, a_crash_at_any_call_leaves_the_announced_checkpoint_and_the_next_start_cleans_up) {
  int crashes = 0;
  for (int64_t call = 0;; ++call, ++crashes) {
    const TempDir files;
    FailingFileSystem crashing({.call = call, .kind = FaultKind::kCrash, .error_number = 28, .written_fraction = 0.5});
    std::vector<int64_t> announced;
    bool crashed = false;
    try {
      save_three(files.path(), crashing, announced);
    } catch (const SimulatedCrash&) {
      crashed = true;
    }
    if (!crashed) break;
    const std::vector<int64_t> steps = complete_steps(files.path());
    if (!announced.empty()) {
      ASSERT_FALSE(steps.empty()) << "call " << call;
      EXPECT_GE(steps.back(), announced.back()) << "call " << call;
    }
    for (const fs::directory_entry& entry : fs::directory_iterator(files.path())) {
      if (entry.path().filename().string().starts_with(".")) continue;
      EXPECT_EQ(verify_checkpoint(entry.path()).problem, "") << "call " << call;  // a visible one is complete
    }
    CheckpointFolders restarted(files.path(), "r", 1, real_file_system());
    restarted.open();
    if (!restarted.steps().empty()) restarted.rotate(*restarted.steps().rbegin(), std::nullopt);
    EXPECT_LE(std::distance(fs::directory_iterator(files.path()), fs::directory_iterator()), 1) << "call " << call;
  }
  EXPECT_GT(crashes, 30);
}

TEST(CheckpointFoldersTest, an_error_of_any_call_is_reported_and_leaves_the_announced_checkpoint) {
  int errors = 0;
  for (int64_t call = 0;; ++call, ++errors) {
    const TempDir files;
    FailingFileSystem failing(
        {.call = call, .kind = FaultKind::kFromNowOn, .error_number = 28, .written_fraction = 0.5});
    std::vector<int64_t> announced;
    try {
      save_three(files.path(), failing, announced);
      EXPECT_FALSE(failing.has_failed()) << "call " << call << " failed and nobody said so";
      break;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
    }
    const std::vector<int64_t> steps = complete_steps(files.path());
    if (!announced.empty()) {
      ASSERT_FALSE(steps.empty()) << "call " << call;
      EXPECT_GE(steps.back(), announced.back()) << "call " << call;
    }
  }
  EXPECT_GT(errors, 30);
}

}  // namespace
}  // namespace gemma_sft
