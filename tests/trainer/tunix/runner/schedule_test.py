"""Learning rates against the values that make_schedule_values.py takes from transformers' formulas."""

from __future__ import annotations

import re
from pathlib import Path

import jax.numpy as jnp
import pytest
from runner.schedule import Schedule

_VALUES = Path(__file__).resolve().parents[2] / "schedule_values.h"
_ROW = re.compile(r"\{gemma_sft::Scheduler::k(\w+), ([^,]+), ([^,]+), (\d+), (\d+), (\d+), ([^}]+)\}")


def _rows() -> list[tuple[Schedule, int, float]]:
    rows = []
    for kind, peak, floor, warmup, total, step, rate in _ROW.findall(_VALUES.read_text()):
        schedule = Schedule(kind.lower(), float(peak), float(floor), int(warmup), int(total))
        rows.append((schedule, int(step), float(rate)))
    return rows


def test_rates_are_those_of_transformers() -> None:
    rows = _rows()
    assert len(rows) > 100
    for schedule, step, rate in rows:
        assert schedule.rate(step) == pytest.approx(rate, rel=1e-12, abs=1e-20), (schedule, step)


def test_the_compiled_rate_is_the_same_in_fp32() -> None:
    for schedule, step, rate in _rows():
        traced = float(schedule.traced_rate(jnp.int32(step)))
        assert traced == pytest.approx(rate, rel=1e-6, abs=2e-7 * schedule.peak), (schedule, step)
