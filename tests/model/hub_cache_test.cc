#include "model/hub_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "configs/error.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::string kCommit = "0123456789abcdef0123456789abcdef01234567";
const std::string kOther = "89abcdef0123456789abcdef0123456789abcdef";

// The environment as this test wants it; put back at the end.
class HubCache : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TEST_DISK", "HF_HOME", "XDG_CACHE_HOME",
                             "HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}) {
      const char* value = std::getenv(name);
      before_[name] = value == nullptr ? std::nullopt : std::optional<std::string>(value);
      ::unsetenv(name);
    }
    set("HOME", (dir_ / "home").string());
  }
  void TearDown() override {
    for (const auto& [name, value] : before_) {
      value ? ::setenv(name.c_str(), value->c_str(), 1) : ::unsetenv(name.c_str());
    }
  }
  static void set(const char* name, const std::string& value) { ::setenv(name, value.c_str(), 1); }

  // A cached model below `cache`; gives its snapshot.
  fs::path put_model(const std::string& cache) {
    const std::string repository = cache + "/models--google--gemma-2b-it/";
    dir_.write(repository + "refs/main", kCommit);
    const fs::path blob = dir_.write(repository + "blobs/abc", "{}");
    const fs::path snapshot = dir_ / (repository + "snapshots/" + kCommit);
    fs::create_directories(snapshot);
    fs::create_symlink("../../blobs/abc", snapshot / "config.json");
    return snapshot;
  }
  static std::string error_of(const std::string& model, const std::optional<std::string>& revision = std::nullopt) {
    try {
      require_model_folder(model, revision);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kModel);
      return error.what();
    }
    return "";
  }

  TempDir dir_;

 private:
  std::map<std::string, std::optional<std::string>> before_;
};

TEST_F(HubCache, AFolderIsItself) {
  dir_.write("model/config.json", "{}");
  EXPECT_EQ(require_model_folder((dir_ / "model").string(), std::nullopt), dir_ / "model");
  EXPECT_EQ(require_model_folder((dir_ / "model").string(), "main"), dir_ / "model");
  EXPECT_EQ(require_model_folder((dir_ / "model").string(), "v2"), dir_ / "model") << "it has no revisions";
}

TEST_F(HubCache, AFolderWithoutConfigAFileAndNothingAreErrors) {
  const fs::path file = dir_.write("model/tokenizer.model", "x");
  EXPECT_EQ(
      error_of((dir_ / "model").string()),
      (dir_ / "model/config.json").string() + ": not found; a model folder in Hugging Face's layout has a config.json");
  EXPECT_THAT(error_of(file.string()), HasSubstr("is a file"));
  EXPECT_EQ(error_of((dir_ / "absent").string()),
            (dir_ / "absent").string() + ": not found; expected a model folder or a hub id such as google/gemma-2b-it");
  EXPECT_NE(error_of(""), "");
  EXPECT_NE(error_of("../google/gemma"), "");
}

TEST_F(HubCache, ThePlacesOfTheCacheInTheirOrder) {
  const fs::path by_home = put_model("home/.cache/huggingface/hub");
  EXPECT_EQ(require_model_folder("google/gemma-2b-it", std::nullopt), by_home);
  const fs::path by_xdg = put_model("xdg/huggingface/hub");
  set("XDG_CACHE_HOME", (dir_ / "xdg").string());
  EXPECT_EQ(require_model_folder("google/gemma-2b-it", std::nullopt), by_xdg);
  const fs::path by_hf_home = put_model("hf/hub");
  set("HF_HOME", (dir_ / "hf").string());
  EXPECT_EQ(require_model_folder("google/gemma-2b-it", std::nullopt), by_hf_home);
  const fs::path by_old_name = put_model("disk/old");
  set("HF_TEST_DISK", (dir_ / "disk").string());
  set("HUGGINGFACE_HUB_CACHE", "$HF_TEST_DISK/old");
  EXPECT_EQ(require_model_folder("google/gemma-2b-it", std::nullopt), by_old_name);
  set("HUGGINGFACE_HUB_CACHE", "${HF_TEST_DISK}/old");
  EXPECT_EQ(require_model_folder("google/gemma-2b-it", std::nullopt), by_old_name);
  const fs::path unknown = put_model("$HF_TEST_UNKNOWN/${");
  set("HUGGINGFACE_HUB_CACHE", (dir_ / "$HF_TEST_UNKNOWN/${").string());
  EXPECT_EQ(require_model_folder("google/gemma-2b-it", std::nullopt), unknown);
  const fs::path by_cache = put_model("home/cache");
  set("HF_HUB_CACHE", "~/cache");
  EXPECT_EQ(require_model_folder("google/gemma-2b-it", std::nullopt), by_cache);
}

TEST_F(HubCache, ARevisionIsABranchATagOrACommit) {
  const fs::path snapshot = put_model("cache");
  set("HF_HUB_CACHE", (dir_ / "cache").string());
  dir_.write("cache/models--google--gemma-2b-it/refs/refs/pr/1", kOther + "\n");
  const fs::path other = dir_.write("cache/models--google--gemma-2b-it/snapshots/" + kOther + "/config.json", "{}");
  EXPECT_EQ(require_model_folder("google/gemma-2b-it", "main"), snapshot);
  EXPECT_EQ(require_model_folder("google/gemma-2b-it", kCommit), snapshot);
  EXPECT_EQ(require_model_folder("google/gemma-2b-it", "refs/pr/1"), other.parent_path());
  dir_.write("cache/models--google--gemma-2b-it/refs/short", "abc123");
  const fs::path named = dir_.write("cache/models--google--gemma-2b-it/snapshots/abc123/config.json", "{}");
  EXPECT_EQ(require_model_folder("google/gemma-2b-it", "short"), named.parent_path());
  for (const char* outside : {"..", ".", "../snapshots", "/tmp", ""}) {
    dir_.write("cache/models--google--gemma-2b-it/refs/outside", outside);
    EXPECT_THAT(error_of("google/gemma-2b-it", "outside"), HasSubstr("revision outside not found")) << outside;
  }
  EXPECT_THAT(error_of("google/gemma-2b-it", "v1.1"), HasSubstr("revision v1.1 not found"));
  EXPECT_THAT(error_of("google/gemma-2b-it", "v1.1"),
              HasSubstr("\n  hf download google/gemma-2b-it --revision v1.1\n"));
  EXPECT_THAT(error_of("google/gemma-2b-it", "../../x"), HasSubstr("no branch, tag or commit"));
}

TEST_F(HubCache, AnAbsentModelIsAnErrorWithTheDownloadCommand) {
  set("HF_HUB_CACHE", (dir_ / "cache").string());
  EXPECT_EQ(
      error_of("google/gemma-2b-it"),
      "google/gemma-2b-it: not found: there is no such folder, and no such model in the local Hugging Face cache (" +
          (dir_ / "cache").string() +
          "). Download it once with\n  hf download google/gemma-2b-it\n"
          "Gemma models are gated: accept the licence at https://huggingface.co/google/gemma-2b-it and log in with "
          "`hf auth login` (or set HF_TOKEN) first");
  set("HF_HUB_OFFLINE", "1");
  EXPECT_THAT(error_of("google/gemma-2b-it"), HasSubstr("HF_HUB_OFFLINE is set"));
}

TEST_F(HubCache, FilesThatTheCommitHasAndTheSnapshotLacksAreNamed) {
  const fs::path snapshot = put_model("cache");
  set("HF_HUB_CACHE", (dir_ / "cache").string());
  dir_.write("cache/models--google--gemma-2b-it/trees/" + kCommit + ".json",
             R"({"format_version": 1, "files": {"README.md": {"size": 3}, "config.json": {"size": 2},
                 "gemma-2b.gguf": {"size": 9}, "model-00001-of-00002.safetensors": {"size": 10},
                 "model-00002-of-00002.safetensors": {"size": 20}, "original/model.safetensors": {"size": 1},
                 "tokenizer.model": {"size": 4}}})");
  dir_.write("cache/models--google--gemma-2b-it/snapshots/" + kCommit + "/model-00001-of-00002.safetensors", "12345");
  const std::string message = error_of("google/gemma-2b-it");
  EXPECT_THAT(message,
              StartsWith("google/gemma-2b-it: the download in the local Hugging Face cache is not complete, "));
  EXPECT_THAT(message,
              HasSubstr(" lacks model-00001-of-00002.safetensors (5 of 10 bytes), "
                        "model-00002-of-00002.safetensors, tokenizer.model. Download it once with\n  hf download"));
  EXPECT_EQ(fs::exists(snapshot / "config.json"), true);
}

TEST_F(HubCache, ALinkIntoNowhereIsAnIncompleteDownload) {
  const fs::path snapshot = put_model("cache");
  set("HF_HUB_CACHE", (dir_ / "cache").string());
  fs::remove(dir_ / "cache/models--google--gemma-2b-it/blobs/abc");
  EXPECT_THAT(error_of("google/gemma-2b-it"), HasSubstr(snapshot.string() + " lacks config.json"));
}

}  // namespace
}  // namespace gemma_sft
