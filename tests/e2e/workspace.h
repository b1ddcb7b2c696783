// A folder to work in as a user would: a tokenizer and a tiny model made by the program itself, rows, a configuration.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tests/e2e/process.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {

class Workspace {
 public:
  // Makes `tok`, `base` (a Gemma 3 of 6 layers), `rows.jsonl` with 40 rows and `c.yaml`: 3 epochs of batch size 4,
  // checkpoints every 5 steps, a tenth of the prompts held out. Throws std::runtime_error when a command fails.
  Workspace();

  const TempDir& files() const { return files_; }
  std::filesystem::path operator/(const std::string& name) const { return files_ / name; }

  // The words of a training run of c.yaml into the folder `run`, with further words.
  std::vector<std::string> train_words(const std::string& run, const std::vector<std::string>& more = {}) const;
  ProcessResult train(const std::string& run, const std::vector<std::string>& more = {}) const;
  ProcessResult run(const std::vector<std::string>& words) const;
  ProcessOptions options() const;

 private:
  TempDir files_;
};

std::string make_rows(int rows);

// Relative name -> SHA-256 of every file of checkpoint-*/ and final_model/ below a run folder.
std::map<std::string, std::string> digests_of_results(const std::filesystem::path& run_folder);

// metrics.jsonl without what differs between equal runs: times, speeds, memory.
std::vector<std::string> lasting_metrics(const std::filesystem::path& run_folder);

int count_lines(const std::filesystem::path& file);  // 0 when it is absent

}  // namespace gemma_sft
