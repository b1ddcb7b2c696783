#include "trainer/run/run_manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/hooked_file_system.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

nlohmann::json read_manifest(const TempDir& dir) { return nlohmann::json::parse(read_file(dir / "run_manifest.json")); }

RunManifest example() {
  RunManifest manifest;
  manifest.run_id = "abc123";
  manifest.dataset_path = "data/ü.jsonl";
  manifest.config.model.base_model = "google/gemma-2b-it";
  manifest.config.model.accelerator = "tpu-v3-8";
  manifest.config.training.seed = 18446744073709551615ull;
  manifest.device = "cpu";
  manifest.artifacts_path = "runs/run_abc123";
  manifest.versions = {{"gemma-sft", "1.2.3"}};
  manifest.sha256 = {{"dataset", "00ff"}};
  return manifest;
}

TEST(RunManifest, HasTheFieldsThatReadersOfSuchFilesKnow) {
  const TempDir dir;
  write_run_manifest(dir.path(), example(), real_file_system());
  const nlohmann::json json = read_manifest(dir);
  for (const char* field :
       {"run_id", "created_at", "dataset_path", "dataset_key", "training_config", "model_config", "recipe", "backend",
        "seed", "git_sha", "artifacts_path", "metadata", "versions", "sha256"}) {
    EXPECT_TRUE(json.contains(field)) << field;
  }
  EXPECT_EQ(json["run_id"], "abc123");
  EXPECT_EQ(json["dataset_path"], "data/ü.jsonl");
  EXPECT_TRUE(json["dataset_key"].is_null());
  EXPECT_TRUE(json["git_sha"].is_null());
  EXPECT_EQ(json["seed"].get<uint64_t>(), 18446744073709551615ull);
  EXPECT_EQ(json["training_config"]["learning_rate"].get<double>(), 2e-5);
  EXPECT_EQ(json["training_config"]["lr_scheduler"], "linear");
  EXPECT_FALSE(json["training_config"].contains("max_steps"));
  EXPECT_EQ(json["model_config"]["tunix_job_config"]["accelerator"], "tpu-v3-8");
  EXPECT_FALSE(json.contains("lora_config"));
}

TEST(RunManifest, ALoraRunShowsItsSettings) {
  const TempDir dir;
  RunManifest manifest = example();
  manifest.config.lora.rank = 8;
  write_run_manifest(dir.path(), manifest, real_file_system());
  EXPECT_EQ(read_manifest(dir)["lora_config"]["rank"], 8);
  EXPECT_TRUE(read_manifest(dir)["lora_config"]["target_modules"].is_array());
}

TEST(RunManifest, TheTimeOfTheFirstStartIsKept) {
  const TempDir dir;
  RunManifest manifest = example();
  manifest.created_at = "2026-01-02T03:04:05.678Z";
  write_run_manifest(dir.path(), manifest, real_file_system());
  manifest.created_at.clear();
  manifest.device = "cuda:0";
  write_run_manifest(dir.path(), manifest, real_file_system());
  EXPECT_EQ(read_manifest(dir)["created_at"], "2026-01-02T03:04:05.678Z");
  EXPECT_EQ(read_manifest(dir)["device"], "cuda:0");
  dir.write("run_manifest.json", "{ broken");
  write_run_manifest(dir.path(), manifest, real_file_system());
  EXPECT_EQ(read_manifest(dir)["created_at"].get<std::string>().substr(0, 2), "20");
}

TEST(RunManifest, OnlyTextsOfWhatARunWritesAreRead) {
  const TempDir dir;
  EXPECT_EQ(find_in_run_manifest(dir.path(), "run_id"), std::nullopt);
  dir.write("run_manifest.json", R"({"run_id": "r", "seed": 1})");
  EXPECT_EQ(find_in_run_manifest(dir.path(), "run_id"), "r");
  EXPECT_EQ(find_in_run_manifest(dir.path(), "seed"), std::nullopt);
  dir.write("run_manifest.json",
            "{\"run_id\": \"r\", \"x\": " + std::string(100'000, '[') + std::string(100'000, ']') + "}");
  EXPECT_EQ(find_in_run_manifest(dir.path(), "run_id"), std::nullopt);
  dir.write("run_manifest.json", "{\"run_id\": \"r\", \"x\": \"" + std::string(2 << 20, 'x') + "\"}");
  EXPECT_EQ(find_in_run_manifest(dir.path(), "run_id"), std::nullopt);
}

TEST(RunManifest, OneThatCannotBeReadIsAnErrorAndNotANewTime) {
  const TempDir dir;
  dir.write("run_manifest.json", "{\"created_at\": \"then\"}");
  RunManifest manifest = example();
  manifest.created_at.clear();
  rlimit usual = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &usual), 0);
  const rlimit no_more_files = {.rlim_cur = 0, .rlim_max = usual.rlim_max};
  HookedFileSystem files([&](const std::filesystem::path&) { setrlimit(RLIMIT_NOFILE, &usual); });  // writing would do
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &no_more_files), 0);
  EXPECT_THROW(write_run_manifest(dir.path(), manifest, files), Error);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &usual), 0);
  EXPECT_EQ(read_manifest(dir)["created_at"], "then");
}

TEST(RunManifest, AFailedWriteLeavesTheOldOneWhole) {
  for (int64_t call = 0;; ++call) {
    const TempDir dir;
    dir.write("run_manifest.json", "{\"created_at\": \"then\"}");
    FailingFileSystem files({.call = call, .written_fraction = 0.3});
    try {
      write_run_manifest(dir.path(), example(), files);
      EXPECT_FALSE(files.has_failed());
      break;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
      EXPECT_NO_THROW(read_manifest(dir));
    }
  }
}

TEST(GitSha, IsReadFromHeadRefsPackedRefsAndWorktrees) {
  const std::string one(40, '1');
  const std::string two(40, '2');
  const TempDir dir;
  EXPECT_EQ(find_git_sha(dir / "absent"), std::nullopt);
  dir.write("a/.git/HEAD", "ref: refs/heads/main\n");
  dir.write("a/.git/packed-refs", "# pack-refs with: peeled fully-peeled sorted\n" + one + " refs/heads/main\n");
  dir.write("a/deep/down/file", "");
  EXPECT_EQ(find_git_sha(dir / "a/deep/down"), one);
  dir.write("a/.git/refs/heads/main", two + "\n");  // a loose ref is newer than a packed one
  EXPECT_EQ(find_git_sha(dir / "a"), two);
  dir.write("b/.git/HEAD", one + "\n");
  EXPECT_EQ(find_git_sha(dir / "b"), one);
  dir.write("a/.git/worktrees/w/HEAD", "ref: refs/heads/main\n");
  dir.write("a/.git/worktrees/w/commondir", "../..\n");
  dir.write("w/.git", "gitdir: " + (dir / "a/.git/worktrees/w").string() + "\n");
  EXPECT_EQ(find_git_sha(dir / "w"), two);
  dir.write("c/.git/HEAD", "ref: refs/heads/unborn\n");
  EXPECT_EQ(find_git_sha(dir / "c"), std::nullopt);
}

}  // namespace
}  // namespace gemma_sft
