"""What a run will do, in numbers: trainer/train_plan.cc and the composition of data/batches/batch_stream.cc.

A step takes gradient_accumulation_steps micro-batches, the last step of an epoch what is left; a micro-batch takes
batch_size rows, or rows up to batch_tokens, in the epoch's order.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from runner.failure import RunnerError
from runner.job_spec import Training
from runner.rows import Rows
from runner.sample_order import epoch_order
from runner.schedule import Schedule


@dataclasses.dataclass(frozen=True)
class Step:
    """One optimizer step: the rows of each micro-batch, and what metrics.jsonl says of it."""

    number: int  # from 1
    epoch: float  # finished part of the run in epochs after this step
    micro_batches: list[np.ndarray]  # row indices; 1 to gradient_accumulation_steps
    tokens: int
    target_tokens: int


def _part_of(epochs: float, steps: int) -> int:
    """epochs * steps, rounded up; a hair above a whole number is that number."""
    return math.ceil(epochs * steps - 1e-9)


class Plan:
    """Immutable; the same for every attempt of a job."""

    def __init__(self, training: Training, rows: Rows) -> None:
        self._training = training
        self._rows = rows
        longest = int(rows.lengths.max())
        if training.batch_tokens is not None and longest > training.batch_tokens:
            raise RunnerError(
                "data_invalid", f"training.batch_tokens: {training.batch_tokens} is less than a row of {longest} tokens"
            )
        self.total_steps = self._count_steps()
        if self.total_steps < 1:
            raise RunnerError(
                "invalid_spec", f"training.num_epochs: {training.num_epochs} of an epoch is no step at all"
            )
        self.schedule = Schedule(
            kind=training.lr_scheduler,
            peak=training.learning_rate,
            min_ratio=training.min_lr_ratio,
            warmup_steps=self._warmup_steps(),
            total_steps=self.total_steps,
        )

    def steps(self, after: int) -> Iterator[Step]:
        """The steps after `after` finished ones, to the end of the run."""
        number, epoch = 0, 0
        rows = self._rows
        while number < self.total_steps:
            order, ends = self._epoch(epoch)
            begins = [0, *ends[:-1]]
            accumulation = self._training.gradient_accumulation_steps
            steps = -(-len(ends) // accumulation)
            for first in range(0, len(ends), accumulation):
                if number == self.total_steps:
                    return
                number += 1
                if number <= after:
                    continue
                micro = [
                    order[a:b]
                    for a, b in zip(
                        begins[first : first + accumulation], ends[first : first + accumulation], strict=True
                    )
                ]
                taken = np.concatenate(micro)
                position = ends[min(first + accumulation, len(ends)) - 1]
                done = epoch + 1 if first // accumulation == steps - 1 else epoch + position / len(rows)
                yield Step(
                    number=number,
                    epoch=float(done),
                    micro_batches=micro,
                    tokens=int(rows.lengths[taken].sum()),
                    target_tokens=int(rows.targets[taken].sum()),
                )
            epoch += 1

    def _epoch(self, epoch: int) -> tuple[np.ndarray, list[int]]:
        """The rows in their order, and where in it each micro-batch ends."""
        training, count = self._training, len(self._rows)
        order = epoch_order(training.seed, epoch, count, training.shuffle)
        if training.batch_tokens is None:
            assert training.batch_size is not None
            return order, [min(at + training.batch_size, count) for at in range(0, count, training.batch_size)]
        ends: list[int] = []
        longest = total = rows = 0
        for at, length in enumerate(self._rows.lengths[order].tolist()):
            longest, total, rows = max(longest, length), total + length, rows + 1
            taken = total if training.packing else longest * rows
            if taken > training.batch_tokens and rows > 1:
                ends.append(at)
                longest, total, rows = length, length, 1
        ends.append(count)
        return order, ends

    def _steps_in_epoch(self, epoch: int) -> int:
        training, count = self._training, len(self._rows)
        if training.batch_tokens is None:
            assert training.batch_size is not None
            micro_batches = -(-count // training.batch_size)
        else:
            micro_batches = len(self._epoch(epoch)[1])
        return -(-micro_batches // training.gradient_accumulation_steps)

    def _count_steps(self) -> int:
        training = self._training
        if training.max_steps is not None:
            return training.max_steps
        if training.batch_tokens is None:
            return _part_of(training.num_epochs, self._steps_in_epoch(0))
        done, epoch = 0, 0
        while epoch < training.num_epochs:
            steps = self._steps_in_epoch(epoch)
            left = training.num_epochs - epoch
            done += _part_of(left, steps) if left < 1 else steps
            epoch += 1
        return done

    def _warmup_steps(self) -> int:
        training = self._training
        if training.warmup_steps:
            return training.warmup_steps
        return math.ceil((training.warmup_ratio or 0.0) * self.total_steps)
