#include "trainer/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace gemma_sft {
namespace {

// 1 at the end of the warm-up, 0 at the end of the run.
double decay(Scheduler kind, double remaining) {
  switch (kind) {
    case Scheduler::kLinear: return std::max(0.0, remaining);
    case Scheduler::kCosine: return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * (1.0 - remaining))));
    case Scheduler::kConstant: return 1.0;
  }
  return 1.0;
}

}  // namespace

double Schedule::rate(int64_t step) const {
  if (step < warmup_steps) return peak * (static_cast<double>(step) / static_cast<double>(warmup_steps));
  const double decay_steps = static_cast<double>(std::max<int64_t>(1, total_steps - warmup_steps));
  // Past the end of the plan the rate stays where it arrived.
  const double remaining = std::max(0.0, static_cast<double>(total_steps - step) / decay_steps);
  return peak * (decay(kind, remaining) * (1.0 - min_ratio) + min_ratio);
}

}  // namespace gemma_sft
