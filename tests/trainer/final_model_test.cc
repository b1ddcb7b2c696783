#include "trainer/final_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>

#include "configs/error.h"
#include "data/files/digest_list.h"
#include "data/files/sha256.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::UnorderedElementsAre;

TEST(WriteFolder, a_destination_may_end_with_a_slash) {
  const TempDir dir;
  for (const std::string text : {"old", "new"}) {
    write_folder(dir / "out/", real_file_system(), [&](const fs::path& folder) {
      EXPECT_EQ(folder.parent_path(), dir.path());
      write_new_file(real_file_system(), folder / "f", text);
      return std::map<std::string, std::string>{{"f", sha256_hex(text)}};
    });
    EXPECT_EQ(read_file(dir / "out/f"), text);
    EXPECT_THAT(dir.list(), UnorderedElementsAre("out/", "out/f", std::string("out/") + kDigestListName));
  }
}

TEST(WriteFolder, what_a_crash_left_is_found_by_the_folder_s_name) {
  const TempDir dir;
  for (const char* destination : {"out", "out/"}) {
    dir.write(".out.new-1/f", "");
    dir.write(".out.old-2/f", "");
    dir.write(".other.new-3", "");
    dir.write("out/f", "new");
    remove_left_overs(dir / destination, real_file_system());
    EXPECT_THAT(dir.list(), UnorderedElementsAre(".other.new-3", "out/", "out/f")) << destination;
    EXPECT_EQ(read_file(dir / "out/f"), "new");
  }
}

TEST(WriteFolder, the_old_one_has_its_name_whatever_happens_before_the_new_one_gets_it) {
  const TempDir dir;
  dir.write(".out.old-2/f", "old");
  remove_left_overs(dir / "out", real_file_system());
  EXPECT_EQ(read_file(dir / "out/f"), "old");
  bool struck = true;
  for (int64_t call = 0; struck; ++call) {
    FailingFileSystem failing({.call = call, .kind = FaultKind::kOnce});
    try {
      write_folder(dir / "out", failing, [&](const fs::path& folder) {
        write_new_file(failing, folder / "f", "new");
        return std::map<std::string, std::string>{{"f", sha256_hex("new")}};
      });
    } catch (const Error&) {
    }
    struck = failing.has_failed();
    ASSERT_TRUE(fs::exists(dir / "out/f")) << "call " << call;
  }
  EXPECT_EQ(read_file(dir / "out/f"), "new");
}

TEST(WriteFolder, what_appeared_meanwhile_is_left_alone_where_nothing_is_to_be_replaced) {
  const TempDir dir;
  const auto write = [&](const fs::path& folder) {
    write_new_file(real_file_system(), folder / "f", "new");
    dir.write("out/f", "somebody's");
    return std::map<std::string, std::string>{{"f", sha256_hex("new")}};
  };
  EXPECT_THROW(write_folder(dir / "out", real_file_system(), write, Existing::kRefuse), Error);
  EXPECT_THAT(dir.list(), UnorderedElementsAre("out/", "out/f"));
  EXPECT_EQ(read_file(dir / "out/f"), "somebody's");
}

ModelSection configured_as(const std::string& model, const std::optional<std::string>& revision = {}) {
  ModelSection section;
  section.base_model = model;
  section.revision = revision;
  return section;
}

TEST(AdapterBase, is_the_hub_id_of_what_is_in_the_hub_s_cache) {
  const TempDir dir;
  const fs::path snapshot = dir / "hub/models--google--gemma-2b-it/snapshots/abc";
  fs::create_directories(snapshot);
  EXPECT_EQ(adapter_base(configured_as("google/gemma-2b-it"), snapshot).name, "google/gemma-2b-it");
  EXPECT_EQ(adapter_base(configured_as("google/gemma-2b-it"), snapshot).revision, std::nullopt);
  EXPECT_EQ(adapter_base(configured_as("google/gemma-2b-it", "v2"), snapshot / "").name, "google/gemma-2b-it");
  EXPECT_EQ(adapter_base(configured_as("google/gemma-2b-it", "v2"), snapshot / "").revision, "v2");
  // Named as a folder, or another model's.
  EXPECT_EQ(adapter_base(configured_as(snapshot.string()), snapshot).name, fs::canonical(snapshot).string());
  EXPECT_EQ(adapter_base(configured_as("google/gemma-2b", "v2"), snapshot).name, fs::canonical(snapshot).string());
  EXPECT_EQ(adapter_base(configured_as("google/gemma-2b", "v2"), snapshot).revision, std::nullopt);
}

TEST(AdapterBase, is_the_folder_even_below_one_that_is_called_snapshots) {
  const TempDir dir;
  const fs::path folder = dir / "backups/snapshots/x";
  fs::create_directories(folder);
  for (const char* configured : {"../backups/snapshots/x", "snapshots/x", "x"}) {
    EXPECT_EQ(adapter_base(configured_as(configured), folder).name, fs::canonical(folder).string()) << configured;
  }
}

}  // namespace
}  // namespace gemma_sft
