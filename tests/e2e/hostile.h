// Files made to hurt, given to the real program: what the tests of a run's files and of a model's share. 256 MB of
// address space and the usual stack of 8 MB are all it gets; each file must be refused in under a second of processor
// time and 64 MB, with an exit code of the table and a message, and no signal.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/files/file_system.h"
#include "data/files/utf8.h"
#include "tests/e2e/process.h"
#include "tests/testing/suite_count.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {

inline constexpr uint64_t kGigabyte = 1ull << 30;
inline constexpr size_t kDeep = 100'000;

inline std::string repeated(const std::string& text, size_t times) {
  std::string all;
  all.reserve(text.size() * times);
  for (size_t i = 0; i < times; ++i) all += text;
  return all;
}

// A file of `bytes` bytes that begins with `start`; the rest is a hole.
inline std::filesystem::path sparse_file(const TempDir& dir, const std::string& name, const std::string& start,
                                         uint64_t bytes) {
  const std::filesystem::path path = dir.write(name, start);
  std::filesystem::resize_file(path, bytes);
  return path;
}

// A large file in pieces: a child's peak counts from that of its parent, so this process must stay small.
inline std::filesystem::path large_file(const TempDir& dir, const std::string& name, const std::string& start,
                                        uint64_t bytes, const std::function<std::string(size_t)>& piece,
                                        const std::string& end) {
  const std::filesystem::path path = dir.write(name, start);
  std::ofstream stream(path, std::ios::binary | std::ios::app);
  uint64_t written = start.size();
  for (size_t i = 0; written + end.size() < bytes; ++i) {
    const std::string text = piece(i);
    stream << text;
    written += text.size();
  }
  stream << end;
  return path;
}

inline std::string with_length(uint64_t length, const std::string& rest) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xff);
  return bytes + rest;
}

inline std::string tensors_file(const std::string& header, const std::string& data = "") {
  return with_length(header.size(), header + data);
}

// gemma-sft under the limits. Sanitizers reserve terabytes of address space, so there only the outcome counts.
inline ProcessResult run_limited(const TempDir& dir, std::vector<std::string> words,
                                 const std::map<std::string, std::string>& environment = {}) {
  words.insert(words.begin(), program("gemma-sft"));
#ifndef GEMMA_SFT_SANITIZED
  words.insert(words.begin(), {"/bin/sh", "-c", "ulimit -v 262144; ulimit -s 8192; exec \"$@\"", "sh"});
#endif
  return run_process(words, {.folder = dir.path(), .environment = environment, .limit_seconds = 60});
}

struct Refusal {
  int exit_code = 0;
  std::string message;  // part of it
};

// Says aloud how many files this program was given.
class Counted : public ::testing::Environment {
 public:
  void SetUp() override { count.emplace("rel-S3 hostile files refused in a second of processor time and 64 MB"); }
  void TearDown() override { count.reset(); }
  std::optional<SuiteCount> count;
};
inline Counted* const counted = dynamic_cast<Counted*>(::testing::AddGlobalTestEnvironment(new Counted));

inline void expect_refused(const ProcessResult& result, const Refusal& expected, const std::string& what) {
  const int failures_before = failures_so_far();
  EXPECT_EQ(result.signal, 0) << what << ": " << result.err.substr(0, 2000);
  EXPECT_FALSE(result.timed_out) << what;
  EXPECT_EQ(result.exit_code, expected.exit_code) << what << ": " << result.err.substr(0, 2000);
  EXPECT_THAT(result.err.substr(0, 4000), ::testing::HasSubstr(expected.message)) << what;
  EXPECT_LT(result.err.size(), 64u << 10) << what;
  EXPECT_FALSE(find_utf8_problem(result.err)) << what;
#ifndef GEMMA_SFT_SANITIZED
  EXPECT_LT(result.cpu_seconds, 1.0) << what;
  EXPECT_LT(result.peak_memory_bytes, 64 << 20) << what;
#endif
  counted->count->add(failures_so_far() == failures_before);
}

class Hostile : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::filesystem::path source = GEMMA_SFT_SOURCE_DIR;
    dir_.write("good/config.json", read_file(source / "tests/model/configs/gemma-3-1b-it.json"));
    dir_.write("good/tokenizer.model", read_file(source / "tests/data/fixtures/tiny_tokenizer.model"));
    dir_.write("rows.jsonl", "{\"prompt\":\"a\",\"response\":\"b\"}\n");
    dir_.write("c.yaml", "model: {base_model: good}\ndataset: {data_path: rows.jsonl}\n");
    ASSERT_EQ(::mkfifo((dir_ / "pipe").c_str(), 0600), 0);
  }

  // The good model folder with one file replaced.
  std::filesystem::path model_with(const std::string& name, const std::string& bytes) {
    const std::string folder = "model" + std::to_string(++models_);
    std::filesystem::create_directory(dir_ / folder);
    std::filesystem::copy_file(dir_ / "good/config.json", dir_ / folder / "config.json");
    std::filesystem::copy_file(dir_ / "good/tokenizer.model", dir_ / folder / "tokenizer.model");
    std::filesystem::remove(dir_ / folder / name);
    if (!bytes.empty()) dir_.write(folder + "/" + name, bytes);
    return dir_ / folder;
  }
  ProcessResult show(const std::string& config) { return run_limited(dir_, {"config", "show", "--config", config}); }
  ProcessResult generate(const std::filesystem::path& model) {
    return run_limited(dir_, {"generate", "--model", model.string(), "--prompt", "x"});
  }
  ProcessResult tokenize(const std::filesystem::path& model, const std::string& rows = "rows.jsonl") {
    return run_limited(dir_, {"tokenize", "--model", model.string(), "--input", rows, "--output", "out.jsonl"});
  }

  TempDir dir_;
  int models_ = 0;
};

}  // namespace gemma_sft
