#include "trainer/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/trainer/schedule_values.h"

namespace gemma_sft {
namespace {

TEST(ScheduleTest, equals_the_formulas_of_transformers_to_a_trillionth_of_the_peak) {
  for (const ScheduleValue& value : kScheduleValues) {
    const Schedule schedule{.kind = value.kind,
                            .peak = value.peak,
                            .min_ratio = value.floor,
                            .warmup_steps = value.warmup,
                            .total_steps = value.total};
    EXPECT_NEAR(schedule.rate(value.step), value.rate, 1e-12 * value.peak)
        << "kind " << static_cast<int>(value.kind) << ", warm-up " << value.warmup << ", total " << value.total
        << ", step " << value.step;
  }
}

TEST(ScheduleTest, the_first_warm_up_step_trains_with_rate_zero) {
  const Schedule schedule{
      .kind = Scheduler::kLinear, .peak = 1.0, .min_ratio = 0, .warmup_steps = 4, .total_steps = 10};
  EXPECT_EQ(schedule.rate(0), 0.0);
  EXPECT_EQ(schedule.rate(1), 0.25);
  EXPECT_EQ(schedule.rate(4), 1.0);
}

TEST(ScheduleTest, never_goes_below_the_floor_after_the_warm_up_nor_above_the_peak) {
  for (Scheduler kind : {Scheduler::kLinear, Scheduler::kCosine, Scheduler::kConstant}) {
    const Schedule schedule{.kind = kind, .peak = 2.0, .min_ratio = 0.1, .warmup_steps = 5, .total_steps = 50};
    for (int64_t step = 5; step < 80; ++step) {
      EXPECT_GE(schedule.rate(step), 0.2);
      EXPECT_LE(schedule.rate(step), 2.0);
    }
  }
}

}  // namespace
}  // namespace gemma_sft
