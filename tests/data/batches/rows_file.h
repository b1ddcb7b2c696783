// A JSONL file in a folder of its own, gone with the object.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>

namespace gemma_sft {

class RowsFile {
 public:
  explicit RowsFile(const std::string& text) {
    static std::atomic<int> count{0};
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("rows_" + std::to_string(::getpid()) + "_" + std::to_string(++count));
    std::filesystem::create_directories(folder_);
    write(text);
  }
  RowsFile(const RowsFile&) = delete;
  RowsFile& operator=(const RowsFile&) = delete;
  ~RowsFile() { std::filesystem::remove_all(folder_); }

  std::string path() const { return (folder_ / "rows.jsonl").string(); }
  void write(const std::string& text) const { std::ofstream(path(), std::ios::binary) << text; }

 private:
  std::filesystem::path folder_;
};

inline std::string training_row(const std::string& id, const std::string& prompt, const std::string& response) {
  return R"({"id": ")" + id + R"(", "prompt": ")" + prompt + R"(", "response": ")" + response + "\"}\n";
}

}  // namespace gemma_sft
