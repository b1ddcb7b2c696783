// What a run will do, in numbers, before anything heavy is loaded. No torch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "configs/run_config.h"
#include "data/batches/batch_stream.h"
#include "trainer/schedule.h"

namespace gemma_sft {

struct TrainPlan {
  int64_t total_steps = 0;
  int64_t steps_per_epoch = 0;       // of epoch 0
  int64_t warmup_steps = 0;          // warmup_ratio: ceil(ratio * total_steps), as transformers
  int64_t checkpoint_every = 0;      // 0: only at the end
  int64_t evaluate_every = 0;        // 0: never, or at the end of each epoch
  bool evaluate_epoch_ends = false;  // where epochs differ in length
  Schedule schedule;
  BatchOptions batches;

  bool saves_after(int64_t finished_steps) const;  // the last step always does
  // `next`: where the data stands after so many steps.
  bool evaluates_after(int64_t finished_steps, const DataCursor& next) const;
};

// Nothing is evaluated where neither the index nor dataset.validation_path has validation rows. Where micro-batches are
// filled by tokens and max_steps is not given, every epoch's steps are counted. Throws Error(kUsage) when the plan has
// no step, StopRequested between two epochs.
TrainPlan make_plan(const RunConfig& config, const DatasetIndex& index, int64_t pad_id);

// Tokens that a row may have: what is asked for, else the model's maximum or 2048, the smaller. Throws Error(kUsage)
// when more is asked for than the model has places.
int64_t choose_max_seq_length(const RunConfig& config, int64_t model_maximum);

// How the rows of this run are read; `vocab_size` is the model's.
IndexOptions make_index_options(const RunConfig& config, int64_t vocab_size, int64_t max_seq_length);

// Optimizer steps of a run over `rows` rows: max_steps, else ceil(num_epochs * steps per epoch), as transformers counts
// them. nullopt when it takes the data to know: no max_steps, and rows are unknown or micro-batches are filled by
// tokens.
std::optional<int64_t> count_steps(const TrainingSection& training, std::optional<int64_t> rows);

// A fraction of the run as steps: ceil(ratio * total), where total is known.
int64_t warmup_steps_of(const TrainingSection& training, int64_t total_steps);

// Complete sentences about what can be seen from the numbers alone: a warm-up as long as the run or longer, a
// checkpoint or an evaluation that never fires before the end.
std::vector<std::string> plan_warnings(const RunConfig& config, int64_t total_steps);

}  // namespace gemma_sft
