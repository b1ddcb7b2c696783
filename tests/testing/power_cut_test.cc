#include "tests/testing/power_cut.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "data/files/file_system.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

class PowerCutTest : public ::testing::Test {
 protected:
  PowerCutTest() { fs::create_directory(root_); }

  // Everything that `work` can leave when the power fails right after it: "name=bytes" of each file, or "-".
  template <typename Work>
  std::set<std::string> leftovers(Work work, int tries = 200) {
    ModelDisk disk(root_);
    {
      const WatchedCalls watched(root_);
      work();
      for (const SystemCall& call : watched.calls()) disk.apply(call);
    }
    std::set<std::string> found;
    std::mt19937_64 random(1);
    for (int i = 0; i < tries; ++i) {
      disk.write_after(random_power_cut(random), random, dir_ / "after");
      std::string text;
      for (const fs::directory_entry& entry : fs::recursive_directory_iterator(dir_ / "after")) {
        text += entry.is_directory() ? "" : entry.path().filename().string() + "=" + read_file(entry.path()) + " ";
      }
      found.insert(text.empty() ? "-" : text);
      fs::remove_all(dir_ / "after");
    }
    return found;
  }

  TempDir dir_{memory_folder()};
  fs::path root_ = dir_ / "root";
};

TEST_F(PowerCutTest, a_file_that_was_not_synced_may_be_empty_or_absent) {
  EXPECT_THAT(leftovers([&] { real_file_system().create(root_ / "a")->append("abc"); }),
              UnorderedElementsAre("-", "a= ", "a=abc "));
}

TEST_F(PowerCutTest, a_synced_file_may_still_lack_its_name_and_a_synced_name_its_bytes) {
  EXPECT_THAT(leftovers([&] {
                const auto file = real_file_system().create(root_ / "a");
                file->append("abc");
                file->sync();
              }),
              UnorderedElementsAre("-", "a=abc "));
  EXPECT_THAT(leftovers([&] {
                real_file_system().create(root_ / "a")->append("abc");
                real_file_system().sync_directory(root_);
              }),
              UnorderedElementsAre("a= ", "a=abc "));
}

TEST_F(PowerCutTest, what_was_written_durably_is_there_whatever_happens) {
  EXPECT_THAT(leftovers([&] { write_file_durably(real_file_system(), root_ / "a", "abc"); }), ElementsAre("a=abc "));
}

TEST_F(PowerCutTest, folders_that_were_made_are_there) {
  EXPECT_THAT(leftovers([&] {
                real_file_system().make_directories(root_ / "x/y");
                write_file_durably(real_file_system(), root_ / "x/y/a", "abc");
              }),
              ElementsAre("a=abc "));
}

TEST_F(PowerCutTest, a_rename_that_was_not_synced_gives_the_old_file_or_the_new_one) {
  dir_.write("root/a", "old");
  EXPECT_THAT(leftovers([&] {
                const auto file = real_file_system().create(root_ / "b");
                file->append("new");
                file->sync();
                real_file_system().sync_directory(root_);
                real_file_system().rename(root_ / "b", root_ / "a");
              }),
              Each(::testing::AnyOf("a=new ", "a=old b=new ", "b=new a=old ")));
}

TEST_F(PowerCutTest, writes_are_torn_at_sectors_and_holes_are_zeros) {
  const auto found = leftovers([&] {
    const auto file = real_file_system().create(root_ / "a");
    file->append(std::string(1024, 'x'));
    real_file_system().sync_directory(root_);
  });
  EXPECT_THAT(found, UnorderedElementsAre("a= ", "a=" + std::string(512, 'x') + " ",
                                          "a=" + std::string(512, '\0') + std::string(512, 'x') + " ",
                                          "a=" + std::string(1024, 'x') + " "));
}

TEST_F(PowerCutTest, a_removal_that_was_not_synced_may_not_have_happened) {
  dir_.write("root/f/a", "1");
  EXPECT_THAT(leftovers([&] { real_file_system().remove_tree(root_ / "f"); }), UnorderedElementsAre("-", "a=1 "));
}

}  // namespace
}  // namespace gemma_sft
