// samples.jsonl of a run folder: which rows each optimizer step trained on, by their ids, in the order in which they
// were taken: {"step": 3, "micro_batches": [["row-7", "row-2"], ["row-9"]]}. No torch.
#pragma once

#include <cstdint>
#include <filesystem>

#include "data/files/file_system.h"
#include "trainer/run/run_observer.h"
#include "trainer/run/step_rows.h"

namespace gemma_sft {

inline constexpr const char* kSamplesName = "samples.jsonl";

// Appends a row per step. One thread.
class SamplesFile : public RunObserver {
 public:
  SamplesFile(const std::filesystem::path& run_folder, FileSystem& files) : rows_(run_folder / kSamplesName, files) {}
  int64_t truncate_after(int64_t step) { return rows_.truncate_after(step); }
  void on_step(const StepRecord& record) override;
  void sync() { rows_.sync(); }  // before a checkpoint is announced

 private:
  StepRows rows_;
};

}  // namespace gemma_sft
