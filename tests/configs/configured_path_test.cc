#include "configs/configured_path.h"

#include <gtest/gtest.h>

#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

TEST(ConfiguredPath, TheWorkingDirectoryComesFirst) {
  const ConfigFolder folder;
  const fs::path config = folder.write("project/configs/c.yaml", "");
  const fs::path here = fs::current_path();
  folder.write("work/data/rows.jsonl", "here");
  folder.write("project/data/rows.jsonl", "there");
  fs::current_path(folder.path() / "work");
  const auto found = find_configured_path("data/rows.jsonl", config);
  fs::current_path(here);
  EXPECT_EQ(found, fs::path("data/rows.jsonl"));
}

TEST(ConfiguredPath, ThenTheNearestAncestorOfTheConfigFile) {
  const ConfigFolder folder;
  const fs::path config = folder.write("a/b/c/c.yaml", "");
  EXPECT_EQ(find_configured_path("data/rows.jsonl", config), std::nullopt);
  const fs::path far = folder.write("data/rows.jsonl", "");
  EXPECT_EQ(find_configured_path("data/rows.jsonl", config), far);
  const fs::path nearer = folder.write("a/b/data/rows.jsonl", "");
  EXPECT_EQ(find_configured_path("data/rows.jsonl", config), nearer);
  const fs::path beside = folder.write("a/b/c/data/rows.jsonl", "");
  EXPECT_EQ(find_configured_path("data/rows.jsonl", config), beside);
}

TEST(ConfiguredPath, ARelativeConfigFileHasAncestorsToo) {
  const ConfigFolder folder;
  folder.write("configs/c.yaml", "");
  const fs::path rows = folder.write("data/rows.jsonl", "");
  fs::create_directories(folder.path() / "deep");
  const fs::path here = fs::current_path();
  fs::current_path(folder.path() / "deep");
  const auto found = find_configured_path("data/rows.jsonl", "../configs/c.yaml");
  fs::current_path(here);
  ASSERT_TRUE(found);
  EXPECT_TRUE(fs::equivalent(*found, rows));
}

TEST(ConfiguredPath, AnAbsolutePathIsItselfOrNothing) {
  const ConfigFolder folder;
  const fs::path config = folder.write("configs/c.yaml", "");
  EXPECT_EQ(find_configured_path(config.string(), config), config);
  EXPECT_EQ(find_configured_path("/no/such/file", config), std::nullopt);
  EXPECT_EQ(find_configured_path("", config), std::nullopt);
}

}  // namespace
}  // namespace gemma_sft
