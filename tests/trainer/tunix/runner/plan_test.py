"""How a run is cut into steps: hand-worked for rows of 3, 5, 4, 6, 2, 7 and 3 tokens in the file's order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from runner.batches import BatchShapes, micro_batches
from runner.failure import RunnerError
from runner.job_spec import Training
from runner.plan import Plan
from runner.rows import Rows

LENGTHS = [3, 5, 4, 6, 2, 7, 3]
BASE = Training(
    num_epochs=1, max_steps=None, batch_size=2, batch_tokens=None, gradient_accumulation_steps=1, learning_rate=1e-3,
    lr_scheduler="linear", min_lr_ratio=0, warmup_steps=None, warmup_ratio=None, weight_decay=0, adam_beta1=0.9,
    adam_beta2=0.999, adam_epsilon=1e-8, max_grad_norm=1, seed=42, precision=None, shuffle=False, packing=True,
    activation_checkpointing=False, deterministic=False, on_nonfinite="stop", optimizer="adamw", max_seq_length=16,
    lora=None,
)  # fmt: skip


def _rows() -> Rows:
    """Row r is r + 10 over and over; all but its first token are targets."""
    ids = np.concatenate([np.full(n, row + 10, np.int32) for row, n in enumerate(LENGTHS)])
    mask = np.concatenate([np.arange(n) > 0 for n in LENGTHS])
    return Rows(ids, mask, np.concatenate([[0], np.cumsum(LENGTHS)]))


def _steps(after: int = 0, **changes: object) -> list[tuple[float, list[list[int]]]]:
    plan = Plan(dataclasses.replace(BASE, **changes), _rows())  # type: ignore[arg-type]
    return [(step.epoch, [m.tolist() for m in step.micro_batches]) for step in plan.steps(after)]


def test_micro_batches_take_batch_size_rows_and_the_last_what_is_left() -> None:
    assert _steps() == [
        (pytest.approx(2 / 7), [[0, 1]]),
        (pytest.approx(4 / 7), [[2, 3]]),
        (pytest.approx(6 / 7), [[4, 5]]),
        (1.0, [[6]]),
    ]


def test_the_last_step_of_an_epoch_accumulates_what_is_left() -> None:
    # ceil(ceil(7 / 2) / 3) = 2 steps an epoch.
    steps = _steps(gradient_accumulation_steps=3, num_epochs=2)
    assert [micro for _, micro in steps] == [[[0, 1], [2, 3], [4, 5]], [[6]]] * 2
    assert [epoch for epoch, _ in steps] == [pytest.approx(6 / 7), 1.0, pytest.approx(13 / 7), 2.0]


def test_batch_tokens_counts_padding_without_packing() -> None:
    # 3, 5: 2 * 5 = 10. With 4 it would be 15. 4, 6: 12 is more than 11, so 4 alone; 6; then 2, 7 is 14: 2 alone; ...
    assert [m for _, m in _steps(batch_tokens=11, packing=False)] == [[[0, 1]], [[2]], [[3]], [[4]], [[5]], [[6]]]
    # Packed: 3 + 5 = 8, with 4 it is 12; 4 + 6 = 10; 2 + 7 = 9; 3.
    assert [m for _, m in _steps(batch_tokens=11, packing=True)] == [[[0, 1]], [[2, 3]], [[4, 5]], [[6]]]


def test_fractions_of_epochs_are_rounded_up_to_steps() -> None:
    assert len(_steps(num_epochs=0.3)) == 2  # of 4
    assert len(_steps(num_epochs=1.25, batch_tokens=11)) == 5
    assert len(_steps(max_steps=9, num_epochs=0.1)) == 9


def test_a_resume_goes_on_where_the_run_was() -> None:
    whole = _steps(num_epochs=3, shuffle=True, gradient_accumulation_steps=2)
    for after in range(len(whole)):
        assert _steps(after, num_epochs=3, shuffle=True, gradient_accumulation_steps=2) == whole[after:]


def test_warm_up_is_a_number_of_steps_or_a_share_rounded_up() -> None:
    def warmup(**changes: object) -> int:
        return Plan(dataclasses.replace(BASE, **changes), _rows()).schedule.warmup_steps  # type: ignore[arg-type]

    assert warmup(warmup_steps=3, warmup_ratio=0.9) == 3
    assert warmup(warmup_steps=0, warmup_ratio=0.3) == 2
    assert warmup() == 0


def test_a_row_longer_than_batch_tokens_is_refused() -> None:
    with pytest.raises(RunnerError, match="batch_tokens: 6 is less than a row of 7"):
        _steps(batch_tokens=6)


def test_targets_are_the_next_tokens_and_empty_rows_fill_the_shape() -> None:
    rows = _rows()
    step = next(iter(Plan(dataclasses.replace(BASE, batch_size=3, gradient_accumulation_steps=4), rows).steps(0)))
    made = list(micro_batches(rows, step, 4, BatchShapes(longest=7, rows=3, multiple=2)))
    assert len(made) == 4  # 3 with rows, the fourth only keeps the count
    assert {batch["ids"].shape for batch in made} == {(4, 8)}
    first = made[0]
    assert first["ids"][1].tolist() == [11] * 5 + [0] * 3
    assert first["weights"][1].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert first["targets"][1].tolist() == [11] * 4 + [0] * 4
    assert first["lengths"].tolist() == [3, 5, 4, 0]
    assert sum(float(batch["weights"].sum()) for batch in made) == step.target_tokens == sum(LENGTHS) - 7
    assert {float(batch["denominator"]) for batch in made} == {step.target_tokens / 4}
    assert made[3]["weights"].sum() == 0


def test_lengths_come_in_few_buckets() -> None:
    shapes = BatchShapes(longest=1000, rows=2, multiple=1)
    assert {shapes.length(n) for n in range(1, 1001)} == {128, 256, 512, 1024}
    assert all(n <= shapes.length(n) for n in range(1, 1001))
