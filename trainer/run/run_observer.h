// What a run shows and leaves behind, as events: the loop tells, observers write files and draw the screen. No torch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gemma_sft {

// One finished optimizer step; the fields of metrics.jsonl.
struct StepRecord {
  int64_t step = 0;          // finished optimizer steps, from 1
  double epoch = 0;          // finished epochs, e.g. 1.25
  double loss = 0;           // mean nll over the step's targets
  double learning_rate = 0;  // used in this step
  double grad_norm = 0;      // before clipping
  int64_t tokens = 0;        // real tokens of the step
  int64_t target_tokens = 0;
  double tokens_per_second = 0;
  double step_seconds = 0;
  double data_wait_seconds = 0;
  int64_t peak_memory_bytes = 0;
  std::string device = {};
  std::vector<std::vector<std::string>> sample_ids = {};  // [micro-batch][row]: what was trained on, in order
};

struct EvalRecord {
  int64_t step = 0;
  double epoch = 0;
  double eval_loss = 0;
  int64_t eval_tokens = 0;
  double eval_seconds = 0;
  bool best = false;
};

// One checkpoint that is on disk.
struct CheckpointRecord {
  int64_t step = 0;
  std::string folder = {};
  double seconds = 0;         // from the start of the save until it was on disk
  double waited_seconds = 0;  // of those, what training stood still: all, unless output.background_save
};

// Calls come from the training thread, in order.
class RunObserver {
 public:
  virtual ~RunObserver() = default;
  virtual void on_start(int64_t /*first_step*/, int64_t /*total_steps*/) {}
  virtual void on_step(const StepRecord&) {}
  virtual void on_eval(const EvalRecord&) {}
  virtual void on_checkpoint(const CheckpointRecord&) {}
  virtual void on_note(const std::string& /*message*/) {}  // for the log and for people
  virtual void on_warning(const std::string& /*message*/) {}
  virtual void on_finish() {}
};

}  // namespace gemma_sft
