// Learning rate of a step: linear, cosine or constant, with linear warm-up and a floor. Pure functions, no torch.
// Formulas: transformers.optimization get_{linear,cosine,constant}_schedule_with_warmup; with a floor r the decay runs
// from 1 to r instead of from 1 to 0.
#pragma once

#include <cstdint>

#include "configs/run_config.h"

namespace gemma_sft {

struct Schedule {
  Scheduler kind = Scheduler::kLinear;
  double peak = 2e-5;
  double min_ratio = 0.0;
  int64_t warmup_steps = 0;
  int64_t total_steps = 1;

  // `step` counts finished optimizer steps: the first step of a run uses rate(0), which is 0 under a warm-up.
  double rate(int64_t step) const;
};

}  // namespace gemma_sft
