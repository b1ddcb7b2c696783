#include "tests/e2e/workspace.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "data/files/sha256.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

void require_success(const ProcessResult& result, const std::string& what) {
  if (result.exit_code != 0) throw std::runtime_error(what + " failed: " + result.err);
}

}  // namespace

std::string make_rows(int rows) {
  const std::vector<std::string> words = {"river", "stone", "cloud", "lemon", "violin", "garden", "table", "silver"};
  std::string text;
  for (int row = 0; row < rows; ++row) {
    const std::string& first = words[static_cast<size_t>(row) % 8];
    const std::string& second = words[static_cast<size_t>(row / 8 + row) % 8];
    std::string prompt = "Reverse the list: " + first + " " + second;
    std::string response = second + " " + first;
    for (int i = 0; i < row % 5; ++i) prompt += " " + words[static_cast<size_t>(i)];
    for (int i = 0; i < row % 3; ++i) response += " " + words[static_cast<size_t>(7 - i)];
    prompt += " number " + std::to_string(row);
    text += nlohmann::json({{"id", "row-" + std::to_string(row)}, {"prompt", prompt}, {"response", response}}).dump() +
            "\n";
  }
  return text;
}

Workspace::Workspace() {
  std::string corpus;
  for (int line = 0; line < 300; ++line) {
    corpus += "Reverse the list of number " + std::to_string(line * 37) +
              ": river stone cloud lemon violin garden table silver, the user and the model answer in turn.\n";
  }
  files_.write("corpus.txt", corpus);
  files_.write("rows.jsonl", make_rows(40));
  files_.write("c.yaml",
               "model:\n"
               "  base_model: base\n"
               "  max_seq_length: 128\n"
               "dataset:\n"
               "  data_path: rows.jsonl\n"
               "  validation_fraction: 0.1\n"
               "training:\n"
               "  num_epochs: 3\n"
               "  batch_size: 4\n"
               "  learning_rate: 1e-3\n"
               "  warmup_steps: 2\n"
               "  precision: fp32\n"
               "evaluation:\n"
               "  every: 7\n"
               "output:\n"
               "  run_dir: runs\n"
               "  checkpoint_every: 5\n"
               "  keep_checkpoints: 2\n");
  require_success(run({"tokenizer", "train", "--corpus", "corpus.txt", "--vocab-size", "420", "--output", "tok"}),
                  "tokenizer train");
  require_success(
      run({"model", "init", "--preset", "tiny-gemma-3", "--tokenizer", "tok", "--output", "base", "--seed", "1"}),
      "model init");
}

ProcessOptions Workspace::options() const {
  ProcessOptions made;
  made.folder = files_.path();
  return made;
}

ProcessResult Workspace::run(const std::vector<std::string>& words) const { return gemma_sft_run(words, options()); }

std::vector<std::string> Workspace::train_words(const std::string& run, const std::vector<std::string>& more) const {
  std::vector<std::string> words = {program("gemma-sft"), "train", "--config", "c.yaml", "--output", run};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

ProcessResult Workspace::train(const std::string& run, const std::vector<std::string>& more) const {
  return run_process(train_words(run, more), options());
}

std::map<std::string, std::string> digests_of_results(const fs::path& run_folder) {
  std::map<std::string, std::string> digests;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(run_folder)) {
    const std::string name = fs::relative(entry.path(), run_folder).generic_string();
    if (!entry.is_regular_file() || !(name.starts_with("checkpoint-") || name.starts_with("final_model/"))) continue;
    digests[name] = sha256_file(entry.path());
  }
  return digests;
}

std::vector<std::string> lasting_metrics(const fs::path& run_folder) {
  std::ifstream stream(run_folder / "metrics.jsonl");
  std::vector<std::string> rows;
  for (std::string line; std::getline(stream, line);) {
    nlohmann::json row = nlohmann::json::parse(line);
    for (const char* passing :
         {"tokens_per_second", "step_seconds", "data_wait_seconds", "peak_memory_bytes", "timestamp", "eval_seconds"}) {
      row.erase(passing);
    }
    rows.push_back(row.dump());
  }
  return rows;
}

int count_lines(const fs::path& file) {
  std::ifstream stream(file);
  int lines = 0;
  for (std::string line; std::getline(stream, line);) ++lines;
  return lines;
}

}  // namespace gemma_sft
