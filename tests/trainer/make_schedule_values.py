#!/usr/bin/env python3
"""Writes schedule_values.h: learning rates by the formulas of transformers.optimization (5.x), in Python floats.

    python3 make_schedule_values.py > schedule_values.h

The three factor functions are those of get_linear_schedule_with_warmup, get_cosine_schedule_with_warmup (num_cycles 0.5) and
get_constant_schedule_with_warmup; with a floor, the cosine one is get_cosine_with_min_lr_schedule_with_warmup's, and the linear one
is scaled in the same way.
"""
import math


def linear(step, warmup, total):
    if step < warmup:
        return float(step) / float(max(1, warmup))
    return max(0.0, float(total - step) / float(max(1, total - warmup)))


def cosine(step, warmup, total):
    if step < warmup:
        return float(step) / float(max(1, warmup))
    progress = float(step - warmup) / float(max(1, total - warmup))
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * progress)))


def constant(step, warmup, total):
    if step < warmup:
        return float(step) / float(max(1.0, warmup))
    return 1.0


def with_floor(factor, step, warmup, total, floor):
    value = factor(step, warmup, total)
    if step < warmup:
        return value
    return max(0.0, value * (1 - floor) + floor)


print("// Made by make_schedule_values.py: {kind, peak, floor, warm-up, total, step, rate}.")
print("#pragma once\n")
print('#include "trainer/schedule.h"\n')
print("struct ScheduleValue {\n  gemma_sft::Scheduler kind;\n  double peak, floor;\n  long long warmup, total, step;\n"
      "  double rate;\n};\n")
print("inline constexpr ScheduleValue kScheduleValues[] = {")
for name, factor in (("kLinear", linear), ("kCosine", cosine), ("kConstant", constant)):
    for peak, floor, warmup, total in ((2e-5, 0.0, 0, 9), (2e-5, 0.0, 100, 9), (1e-3, 0.0, 3, 30), (3e-4, 0.1, 7, 1000),
                                       (5e-2, 0.0, 1, 2), (1.0, 0.25, 10, 11), (1e-5, 0.0, 32, 315)):
        for step in sorted({0, 1, 2, 3, 5, 8, warmup - 1, warmup, warmup + 1, total // 2, total - 1}):
            if 0 <= step < total:
                rate = peak * with_floor(factor, step, warmup, total, floor)
                print("    {gemma_sft::Scheduler::%s, %r, %r, %d, %d, %d, %r}," % (name, peak, floor, warmup, total, step, rate))
print("};")
