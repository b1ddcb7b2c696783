#include "trainer/checkpoint/checkpoint_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <new>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/sha256.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class CheckpointFormatTest : public ::testing::Test {
 protected:
  fs::path make(int64_t step, const std::string& run_id = "r", const std::string& content = "weights") {
    const std::string name = checkpoint_name(step);
    CheckpointManifest manifest{.run_id = run_id, .step = step, .files = {}};
    for (const auto& [file, bytes] : {std::pair{"model.safetensors", content}, {"state.json", "{}\n" + content}}) {
      files_.write(name + "/" + file, bytes);
      manifest.files[file] = {bytes.size(), sha256_hex(bytes)};
    }
    files_.write(name + "/manifest.json", to_json(manifest));
    return files_ / name;
  }
  std::string problem(const fs::path& folder) { return verify_checkpoint(folder).problem; }

  TempDir files_;
};

TEST_F(CheckpointFormatTest, a_complete_folder_verifies) {
  const CheckpointVerdict verdict = verify_checkpoint(make(12));
  ASSERT_TRUE(verdict.manifest) << verdict.problem;
  EXPECT_EQ(verdict.manifest->step, 12);
  EXPECT_EQ(verdict.manifest->run_id, "r");
  EXPECT_EQ(verdict.manifest->files.size(), 2u);
}

TEST_F(CheckpointFormatTest, a_flipped_bit_in_any_byte_of_any_file_is_found) {
  const fs::path folder = make(12);
  for (const char* name : {"manifest.json", "model.safetensors", "state.json"}) {
    const std::string good = read_file(folder / name);
    for (size_t byte = 0; byte < good.size(); ++byte) {
      for (int bit : {static_cast<int>(byte % 8), static_cast<int>((byte + 5) % 8)}) {
        std::string bad = good;
        bad[byte] = static_cast<char>(bad[byte] ^ (1 << bit));
        files_.write(std::string("checkpoint-12/") + name, bad);
        const CheckpointVerdict verdict = verify_checkpoint(folder);
        // A run id that differs in a letter is another run's: find_checkpoints rejects it.
        if (verdict.manifest && verdict.manifest->run_id != "r") continue;
        EXPECT_FALSE(verdict.manifest) << name << " byte " << byte << " bit " << bit;
      }
    }
    files_.write(std::string("checkpoint-12/") + name, good);
  }
  EXPECT_TRUE(verify_checkpoint(folder).manifest);
}

TEST_F(CheckpointFormatTest, every_truncation_is_found) {
  const fs::path folder = make(12);
  for (const char* name : {"manifest.json", "model.safetensors", "state.json"}) {
    const std::string good = read_file(folder / name);
    for (size_t size = 0; size + 1 < good.size(); ++size) {  // only white space follows the last brace of manifest.json
      files_.write(std::string("checkpoint-12/") + name, good.substr(0, size));
      EXPECT_FALSE(verify_checkpoint(folder).manifest) << name << " cut to " << size;
    }
    files_.write(std::string("checkpoint-12/") + name, good);
  }
}

TEST_F(CheckpointFormatTest, the_reason_names_file_and_digests) {
  const fs::path folder = make(3);
  files_.write("checkpoint-3/model.safetensors", "WEIGHTS");
  EXPECT_EQ(problem(folder),
            "model.safetensors: SHA-256 is " + sha256_hex("WEIGHTS") + ", the manifest says " + sha256_hex("weights"));
  files_.write("checkpoint-3/model.safetensors", "weight");
  EXPECT_EQ(problem(folder), "model.safetensors: has 6 bytes, the manifest says 7");
  fs::remove(folder / "model.safetensors");
  EXPECT_EQ(problem(folder), "model.safetensors: is missing");
}

TEST_F(CheckpointFormatTest, files_added_or_swapped_with_another_step_are_found) {
  const fs::path folder = make(3);
  make(4, "r", "WEIGHTS");
  files_.write("checkpoint-3/extra.bin", "x");
  EXPECT_EQ(problem(folder), "extra.bin: is not named in the manifest");
  fs::remove(folder / "extra.bin");
  fs::copy_file(files_ / "checkpoint-4/model.safetensors", folder / "model.safetensors",
                fs::copy_options::overwrite_existing);
  EXPECT_THAT(problem(folder), HasSubstr("model.safetensors: SHA-256"));
  make(3);
  fs::copy_file(files_ / "checkpoint-4/manifest.json", folder / "manifest.json", fs::copy_options::overwrite_existing);
  EXPECT_THAT(problem(folder), HasSubstr("says step 4, the folder's name does not"));
}

TEST_F(CheckpointFormatTest, links_and_other_kinds_of_files_are_rejected) {
  make(3);
  fs::create_directory_symlink(files_ / "checkpoint-3", files_ / "checkpoint-5");
  EXPECT_THAT(problem(files_ / "checkpoint-5"), HasSubstr("symbolic link"));
  fs::rename(files_ / "checkpoint-3/state.json", files_ / "state.json");
  fs::create_symlink(files_ / "state.json", files_ / "checkpoint-3/state.json");
  EXPECT_THAT(problem(files_ / "checkpoint-3"), HasSubstr("state.json: is not a plain file"));
  files_.write("checkpoint-6", "a file");
  EXPECT_THAT(problem(files_ / "checkpoint-6"), HasSubstr("is not a folder"));
}

TEST_F(CheckpointFormatTest, what_this_process_lacks_says_nothing_about_the_checkpoint) {
  const fs::path folder = make(3);
  rlimit usual = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &usual), 0);
  const rlimit no_more_files = {.rlim_cur = 0, .rlim_max = usual.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &no_more_files), 0);
  std::string said = "no error";
  try {
    verify_checkpoint(folder);
  } catch (const Error& error) {
    said = error.what();
  }
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &usual), 0);
  EXPECT_THAT(said, HasSubstr("Too many open files"));
  EXPECT_THROW(verify_checkpoint(folder, std::nullopt, [] { throw std::bad_alloc(); }), std::bad_alloc);
}

TEST_F(CheckpointFormatTest, a_newer_format_is_refused_by_its_number) {
  make(3);
  std::string text = read_file(files_ / "checkpoint-3/manifest.json");
  text.replace(text.find("\"version\": 1"), 12, "\"version\": 2");
  files_.write("checkpoint-3/manifest.json", text);
  EXPECT_THAT(problem(files_ / "checkpoint-3"), HasSubstr("format version 2, this program reads version 1"));
}

TEST_F(CheckpointFormatTest, names_that_leave_the_folder_are_refused) {
  files_.write("outside", "x");
  CheckpointManifest manifest{.run_id = "r", .step = 3, .files = {{"../outside", {1, sha256_hex("x")}}}};
  files_.write("checkpoint-3/manifest.json", to_json(manifest));
  EXPECT_THAT(problem(files_ / "checkpoint-3"), HasSubstr("is not a file name"));
}

TEST_F(CheckpointFormatTest, the_newest_is_the_one_with_the_highest_step_whatever_its_name_sorts_as_or_its_time_is) {
  make(9);
  make(10);
  make(100);
  fs::last_write_time(files_ / "checkpoint-9/manifest.json",
                      fs::file_time_type::clock::now() + std::chrono::hours(8760));
  const auto verdicts = find_checkpoints(files_.path(), "r");
  ASSERT_EQ(verdicts.size(), 3u);
  EXPECT_EQ(verdicts[0].manifest->step, 100);
  EXPECT_EQ(verdicts[1].manifest->step, 10);
  EXPECT_EQ(verdicts[2].manifest->step, 9);
}

TEST_F(CheckpointFormatTest, the_rejected_follow_with_their_reasons_and_other_names_are_not_touched) {
  make(3);
  make(5, "another");
  make(7);
  fs::remove(files_ / "checkpoint-7/manifest.json");
  files_.write("my-checkpoint-9/manifest.json", "{}");
  files_.write("checkpoint-9-backup/manifest.json", "{}");
  files_.write("checkpoint-09/manifest.json", "{}");
  const auto verdicts = find_checkpoints(files_.path(), "r");
  ASSERT_EQ(verdicts.size(), 3u);
  EXPECT_EQ(verdicts[0].manifest->step, 3);
  EXPECT_THAT(verdicts[1].problem, HasSubstr("no manifest.json"));
  EXPECT_THAT(verdicts[2].problem, AllOf(HasSubstr("run another"), HasSubstr("run r")));
}

TEST_F(CheckpointFormatTest, names_and_steps_belong_together) {
  EXPECT_EQ(checkpoint_name(0), "checkpoint-0");
  EXPECT_EQ(step_of_checkpoint_name("checkpoint-120"), 120);
  for (const char* name : {"checkpoint-", "checkpoint-1x", "checkpoint-01", "checkpoint--1", "xcheckpoint-1",
                           "checkpoint-99999999999999999999"}) {
    EXPECT_FALSE(step_of_checkpoint_name(name)) << name;
  }
}

TEST_F(CheckpointFormatTest, what_files_say_forges_no_line_and_makes_no_endless_message) {
  const fs::path folder = make(3, "x\x1b[2J\nnot a line of ours");
  EXPECT_EQ(verify_checkpoint(folder, "r").problem, "belongs to run x\\u001b[2J\\nnot a line of ours, not to run r");
  make(3, std::string(900'000, 'x'));
  EXPECT_LT(verify_checkpoint(folder, "r").problem.size(), 300u);
  make(3, std::string(128, 'y'));
  EXPECT_EQ(verify_checkpoint(folder, "r").problem, "belongs to run " + std::string(128, 'y') + ", not to run r");
  files_.write("checkpoint-3/a\x1b\nb\x9b", "");
  EXPECT_EQ(problem(folder), "a\\u001b\\nb\\x9b: is not named in the manifest");
}

}  // namespace
}  // namespace gemma_sft
