// A training run in a process of its own, with one system call below its run folder made faulty: what it announced, how
// it ended, what it said.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/testing/system_calls.h"
#include "trainer/run_training.h"

namespace gemma_sft {

struct TrainingProcess {
  int exit_code = -1;  // 0: finished; 1: ended with an Error; -1: a signal ended it
  int signal = 0;
  bool struck = false;             // the fault came to pass (not known of a killed process)
  int64_t first_step = -1;         // where it began or continued; -1: it did not come that far
  std::vector<int64_t> announced;  // steps of checkpoints, in order
  std::string error;               // the message it ended with
  std::string error_kind;          // "io" for Error(kIo), "other"
  std::string faulty_call;         // "write metrics.jsonl"
  bool synced_again = false;       // an fsync that had failed was tried again
  int64_t calls = 0;               // system calls below the run folder
};

// Runs it in a child of this process, which must not have threads: fork copies only the calling one.
TrainingProcess train_in_child(const TrainRequest& request, CallFault fault = {});

// Runs `work` in a child of this process; its exit code, or 128 + the signal that ended it.
int run_in_child(const std::function<int()>& work);

}  // namespace gemma_sft
