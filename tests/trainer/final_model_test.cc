#include "trainer/final_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>

#include "data/files/digest_list.h"
#include "data/files/sha256.h"
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
    remove_left_overs(dir / destination, real_file_system());
    EXPECT_THAT(dir.list(), UnorderedElementsAre(".other.new-3")) << destination;
  }
}

TEST(BaseModelName, is_the_hub_id_of_what_is_in_the_hub_s_cache) {
  const TempDir dir;
  const fs::path snapshot = dir / "hub/models--google--gemma-2b-it/snapshots/abc";
  fs::create_directories(snapshot);
  EXPECT_EQ(base_model_name("google/gemma-2b-it", snapshot), "google/gemma-2b-it");
  EXPECT_EQ(base_model_name("google/gemma-2b-it", snapshot / ""), "google/gemma-2b-it");
  // Named as a folder, or another model's.
  EXPECT_EQ(base_model_name(snapshot.string(), snapshot), fs::canonical(snapshot).string());
  EXPECT_EQ(base_model_name("google/gemma-2b", snapshot), fs::canonical(snapshot).string());
}

TEST(BaseModelName, is_the_folder_even_below_one_that_is_called_snapshots) {
  const TempDir dir;
  const fs::path folder = dir / "backups/snapshots/x";
  fs::create_directories(folder);
  for (const char* configured : {"../backups/snapshots/x", "snapshots/x", "x"}) {
    EXPECT_EQ(base_model_name(configured, folder), fs::canonical(folder).string()) << configured;
  }
}

}  // namespace
}  // namespace gemma_sft
