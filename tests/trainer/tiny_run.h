// Training runs that take a fraction of a second: a two-layer Gemma 3 with the tokenizer of tests/data/fixtures, rows
// made by a formula, everything below one temporary folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "model/gemma.h"
#include "tests/testing/temp_dir.h"
#include "trainer/run_training.h"

namespace gemma_sft {

// What an observer was told.
struct RecordingObserver : RunObserver {
  std::vector<StepRecord> steps;
  std::vector<EvalRecord> evaluations;
  std::vector<std::string> checkpoints, notes, warnings;
  std::vector<CheckpointRecord> saves;
  int64_t first_step = -1, total_steps = -1;
  int finished = 0;

  void on_start(int64_t first, int64_t total) override { first_step = first, total_steps = total; }
  void on_step(const StepRecord& record) override { steps.push_back(record); }
  void on_eval(const EvalRecord& record) override { evaluations.push_back(record); }
  void on_checkpoint(const CheckpointRecord& record) override {
    checkpoints.push_back(record.folder);
    saves.push_back(record);
  }
  void on_note(const std::string& message) override { notes.push_back(message); }
  void on_warning(const std::string& message) override { warnings.push_back(message); }
  void on_finish() override { ++finished; }
};

class TinyRun {
 public:
  TinyRun();  // makes the base model and data.jsonl with 11 rows

  const TempDir& files() const { return files_; }
  std::filesystem::path base_model() const { return files_ / "base"; }
  std::filesystem::path data() const { return files_ / "data.jsonl"; }
  std::filesystem::path run_folder(const std::string& name = "run") const { return files_ / name; }

  // batch_size 2, 3 epochs of 6 steps, seed 7, a checkpoint every 2 steps, ... and `assignments` ("training.seed=8").
  TrainRequest request(const std::vector<std::string>& assignments = {}, const std::string& run = "run") const;

 private:
  TempDir files_;
};

// `rows` training examples with prompts and responses of unlike length.
std::string make_rows(int64_t rows);

// Relative name -> SHA-256 of every file of checkpoints and final_model in a run folder.
std::map<std::string, std::string> digests_of_results(const std::filesystem::path& run_folder);

// metrics.jsonl without what differs between two equal runs: times, speeds, memory.
std::vector<std::string> lasting_metrics(const std::filesystem::path& run_folder);

// The tiny model's configuration, and a model with the base model's weights.
GemmaConfig tiny_config();
Gemma load_tiny_model(const TinyRun& run, const GemmaOptions& options = {});

}  // namespace gemma_sft
