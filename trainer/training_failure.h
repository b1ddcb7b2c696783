// Failures of a step in the words a user needs: what ran out of memory where, and which rows made a loss that is not a
// number.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/batches/packed_batch.h"

namespace gemma_sft {

// What a training run may change where memory runs out, and what it has not lost.
inline constexpr const char* kTrainingRemedy =
    "Reduce training.batch_size (16 -> 8 -> 4) and set training.gradient_accumulation_steps: 4 to keep the step's "
    "size, set training.activation_checkpointing: true or lora.rank, lower model.max_seq_length, or use a larger "
    "accelerator (tpu-v3-8 -> tpu-v3-32 on the job service). Checkpoints saved so far are intact.";

// What generate and eval may change.
inline constexpr const char* kAnswersRemedy =
    "Lower --max-new-tokens, use --precision bf16, or a device with more memory (--device).";

// What was being done: named in the message when memory runs out.
struct WorkPlace {
  std::string phase;                     // "forward and backward pass", "optimizer step", "loading the model", ...
  int64_t step = 0;                      // optimizer step in progress, from 1; 0: before the first
  const PackedBatch* batch = nullptr;    // not owned
  const char* remedy = kTrainingRemedy;  // sentences: what the command at work may change
};

// Runs `work`. std::bad_alloc, LibTorch's out-of-memory error, its CPU allocator's failure, oneDNN's and that of a new
// thread become Error(kOutOfMemory) with phase, step, batch, longest row, bytes asked for and what to change;
// everything else passes through.
void with_memory_errors_explained(const WorkPlace& place, const std::function<void()>& work);

// A number for messages: NaN has a sign, which says nothing.
double without_sign_of_nan(double number);

// "data/train.jsonl:3 (id a), data/train.jsonl:9 (id b)": the rows of the batches, at most 20 and how many more.
std::string describe_rows(const std::vector<PackedBatch>& batches);

}  // namespace gemma_sft
