// R6 and R7: bytes that changed, files cut short, zeroed, removed, added or swapped. Every one of them is found before
// anything of the checkpoint is used, with a reason that names the file, and the one before it is chosen;
// `gemma-sft verify` comes to the same verdict.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <random>

#include "configs/error.h"
#include "data/files/safetensors.h"
#include "tests/testing/suite_count.h"
#include "tests/testing/temp_dir.h"
#include "tests/trainer/checkpoint/saved_checkpoints.h"
#include "trainer/cli/front_end_commands.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

class CorruptionTest : public ::testing::Test {
 protected:
  CorruptionTest() {
    dir_.write("run_manifest.json", "{\"run_id\": \"r\"}");
    save(3);
    save(6);
  }

  // As Checkpointer saves: three safetensors files of some pages, the texts, the manifest.
  void save(int64_t step) {
    FileSystem& files = real_file_system();
    CheckpointFolders folders(dir_.path(), "r", 2, files);
    const fs::path temporary = folders.begin(step, 1);
    std::map<std::string, FileDigest> contents;
    std::mt19937_64 random(static_cast<uint64_t>(step));
    for (const char* name : {"model", "optimizer", "random"}) {
      std::vector<uint64_t> values(2500);
      for (uint64_t& value : values) value = random();
      const fs::path path = temporary / fmt::format("{}.safetensors", name);
      const WrittenFile written =
          write_safetensors(files, path,
                            {{"a.weight", TensorDtype::kF32, {50, 50}, [&] { return values.data(); }},
                             {"b.weight", TensorDtype::kBF16, {5000}, [&] { return values.data() + 1250; }}});
      contents[path.filename().string()] = {written.bytes, written.sha256};
    }
    for (const char* name : {"config.yaml", "state.json"}) {
      const std::string text = fmt::format("{} of step {}\n", name, step);
      const auto file = files.create(temporary / name);
      file->append(text);
      file->sync();
      file->close();
      contents[name] = {text.size(), sha256_hex(text)};
    }
    folders.publish(temporary, step, contents);
  }

  fs::path newest() const { return dir_ / "checkpoint-6"; }

  // What is wrong with how the damage is dealt with; empty: nothing. `name`: the file that the reason has to name.
  std::string find_fault(const std::string& name) {
    const std::vector<CheckpointVerdict> verdicts = find_checkpoints(dir_.path(), "r");
    if (verdicts.empty() || !verdicts[0].manifest) return "no checkpoint is chosen";
    if (verdicts[0].manifest->step != 3) return "not found";
    const std::string& problem = verdicts.back().problem;
    // A changed manifest may contradict any file, or belong to another run.
    const bool says_manifest = problem.find("manifest") != std::string::npos || problem.starts_with("belongs to run");
    if (name == "manifest.json" ? !says_manifest : problem.find(name) == std::string::npos) {
      return "the reason does not name " + name + ": " + problem;
    }
    std::string said = verify(newest());
    if (cases_++ % 16 == 0) {
      if (verify(dir_.path()) != said) return "verify of the run folder says something else";
    }
    if (said != newest().string() + ": " + problem) return "verify says something else: " + said;
    return "";
  }

  // The problems that `gemma-sft verify` ends with; empty: none.
  static std::string verify(const fs::path& folder) {
    ::testing::internal::CaptureStdout();
    std::string problems;
    try {
      run_verify({folder.string()}, Output({.quiet = true}));
    } catch (const Error& error) {
      problems = error.kind() == ErrorKind::kCheckpoint ? error.what() : "another kind of error";
    }
    ::testing::internal::GetCapturedStdout();
    return problems;
  }

  // Writes the damaged file, counts the verdict, puts the good one back.
  void expect_found(SuiteCount& count, const std::string& name, const std::string& damaged, const std::string& what) {
    const std::string good = read_file(newest() / name);
    ASSERT_NE(damaged, good);
    dir_.write("checkpoint-6/" + name, damaged);
    const std::string fault = find_fault(name);
    EXPECT_TRUE(count.add(fault.empty())) << name << ", " << what << ": " << fault;
    dir_.write("checkpoint-6/" + name, good);
  }

  void expect_flip_found(SuiteCount& count, const std::string& name, const std::string& good, size_t byte, int bit) {
    std::string damaged = good;
    damaged[byte] = static_cast<char>(damaged[byte] ^ (1 << bit));
    expect_found(count, name, damaged, fmt::format("bit {} of byte {}", bit, byte));
  }

  TempDir dir_{memory_folder()};
  int64_t cases_ = 0;
};

const std::vector<std::string> kNames = {"config.yaml",           "manifest.json",      "model.safetensors",
                                         "optimizer.safetensors", "random.safetensors", "state.json"};

TEST_F(CorruptionTest, a_flipped_bit_anywhere_is_found) {
  std::mt19937_64 random(suite_seed());
  SuiteCount headers("R6 bit flips in the manifest and in headers");
  for (const std::string& name : kNames) {
    const std::string good = read_file(newest() / name);
    const auto byte_at = [&](size_t i) { return static_cast<size_t>(static_cast<unsigned char>(good[i])); };
    const size_t end = name.ends_with(".safetensors") ? 8 + byte_at(0) + 256 * byte_at(1) : good.size();
    const auto stride = static_cast<size_t>(case_count(name == "manifest.json" ? 3 : 29, 1));
    for (size_t byte = random() % stride; byte < end; byte += stride) {
      expect_flip_found(headers, name, good, byte, static_cast<int>(random() % 8));
    }
  }
  SuiteCount tensors("R6 bit flips in tensors");
  const int64_t flips = case_count(150, 10'000);
  for (int64_t i = 0; i < flips; ++i) {
    const std::string& name = kNames[2 + static_cast<size_t>(random() % 3)];
    const std::string good = read_file(newest() / name);
    expect_flip_found(tensors, name, good, good.size() - 1 - random() % 20'000, static_cast<int>(random() % 8));
  }
}

TEST_F(CorruptionTest, a_file_cut_short_zeroed_removed_added_or_swapped_is_found) {
  SuiteCount count("R6 cut, zeroed, removed, added and swapped files");
  for (const std::string& name : kNames) {
    const std::string good = read_file(newest() / name);
    for (size_t size = 0; size < good.size(); size += 4096)
      expect_found(count, name, good.substr(0, size), "cut at a page");
    for (size_t cut = 1; cut <= 16; ++cut) {
      if (name == "manifest.json" && cut == 1) continue;  // the line feed after the last brace says nothing
      expect_found(count, name, good.substr(0, good.size() - cut), "cut near the end");
    }
    for (size_t page = 0; page < good.size(); page += 4096) {
      std::string damaged = good;
      const size_t bytes = std::min<size_t>(4096, good.size() - page);
      damaged.replace(page, bytes, std::string(bytes, '\0'));
      expect_found(count, name, damaged, "a zeroed page");
    }
    expect_found(count, name, good + std::string(1, '\0'), "a byte more");
    if (name != "manifest.json")
      expect_found(count, name, read_file(dir_ / ("checkpoint-3/" + name)), "of another step");
    fs::remove(newest() / name);
    const std::string fault = find_fault(name);
    EXPECT_TRUE(count.add(fault.empty())) << name << " removed: " << fault;
    dir_.write("checkpoint-6/" + name, good);
  }
  for (const char* added : {"adapter.bin", "model.safetensors.bak", ".hidden", "folder/file"}) {
    dir_.write(std::string("checkpoint-6/") + added, "x");
    const std::string name = fs::path(added).begin()->string();
    const std::string fault = find_fault(name);
    EXPECT_TRUE(count.add(fault.empty())) << added << ": " << fault;
    fs::remove_all(newest() / name);
  }
  const std::string good = read_file(newest() / "manifest.json");
  dir_.write("checkpoint-6/manifest.json", read_file(dir_ / "checkpoint-3/manifest.json"));
  const std::string fault = find_fault("manifest.json");
  EXPECT_TRUE(count.add(fault.empty())) << "the manifest of another step: " << fault;
  dir_.write("checkpoint-6/manifest.json", good);
  fs::rename(newest(), dir_ / "swap");
  fs::rename(dir_ / "checkpoint-3", newest());
  EXPECT_FALSE(verify_checkpoint(newest()).manifest) << "a folder under another step's name";
}

TEST_F(CorruptionTest, an_undamaged_run_verifies_everywhere) {
  EXPECT_EQ(complete_steps(dir_.path()), (std::vector<int64_t>{3, 6}));
  EXPECT_EQ(verify(dir_.path()), "");
  EXPECT_EQ(verify(newest()), "");
}

TEST_F(CorruptionTest, a_checkpoint_of_another_run_is_found_however_its_folder_is_named) {
  dir_.write("run_manifest.json", "{\"run_id\": \"other\"}");
  const std::string problem = ": belongs to run r, not to run other";
  EXPECT_EQ(verify(newest()), newest().string() + problem);
  EXPECT_EQ(verify(newest() / ""), newest().string() + problem);
  const fs::path before = fs::current_path();
  fs::current_path(newest());
  const std::string said = verify(".");
  fs::current_path(before);
  EXPECT_EQ(said, fs::canonical(newest()).string() + problem);
}

TEST_F(CorruptionTest, verifying_is_as_fast_as_it_is) {
  const int64_t bytes = case_count(64 << 20, 1 << 30);
  FileSystem& files = real_file_system();
  CheckpointFolders folders(dir_.path(), "r", 9, files);
  const fs::path temporary = folders.begin(9, static_cast<uint64_t>(bytes));
  const std::vector<char> block(static_cast<size_t>(bytes), 'x');
  const WrittenFile written = write_safetensors(files, temporary / "model.safetensors",
                                                {{"w", TensorDtype::kU8, {bytes}, [&] { return block.data(); }}});
  folders.publish(temporary, 9, {{"model.safetensors", {written.bytes, written.sha256}}});
  double best = 0;  // of processor time, so that others at work do not count
  for (int i = 0; i < 3; ++i) {
    const std::clock_t start = std::clock();
    ASSERT_TRUE(verify_checkpoint(dir_ / "checkpoint-9").manifest);
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    best = std::max(best, static_cast<double>(bytes) / seconds / 1e9);
  }
  print_figure("R7 verify, warm, one core", fmt::format("{:.2f} GB/s", best));
}

}  // namespace
}  // namespace gemma_sft
