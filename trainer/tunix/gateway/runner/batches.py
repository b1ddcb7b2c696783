"""Micro-batches of one shape or a few: rows padded on the right, and rows of padding where there are too few.

XLA compiles once per shape, so lengths come in buckets, and a ragged last micro-batch is filled with empty rows, which
have no targets and weigh nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from runner.plan import Step
from runner.rows import Rows

MicroBatch = dict[str, np.ndarray | np.float32]

_SHORTEST_BUCKET = 128  # below that, padding is cheaper than another compilation


@dataclasses.dataclass(frozen=True)
class BatchShapes:
    """Lengths by halves from the longest row of the data set; rows a multiple of what the mesh divides them by."""

    longest: int
    rows: int  # of a full micro-batch; 0: as many as there are (training.batch_tokens)
    multiple: int  # of rows

    def length(self, tokens: int) -> int:
        step = _SHORTEST_BUCKET if self.longest > _SHORTEST_BUCKET else 8
        length = -(-self.longest // step) * step
        while length // 2 >= max(tokens, _SHORTEST_BUCKET):
            length = -(-(length // 2) // step) * step
        return length

    def height(self, rows: int) -> int:
        wanted = self.rows or 1 << (rows - 1).bit_length()
        return -(-wanted // self.multiple) * self.multiple


def _micro_batch(rows: Rows, chosen: np.ndarray, shapes: BatchShapes, denominator: float, length: int) -> MicroBatch:
    height = shapes.height(len(chosen))
    ids = np.zeros((height, length), dtype=np.int32)
    targets = np.zeros((height, length), dtype=np.int32)
    weights = np.zeros((height, length), dtype=np.float32)
    lengths = np.zeros(height, dtype=np.int32)
    for place, row in enumerate(chosen):
        tokens, mask = rows.ids(row), rows.mask(row)
        count = len(tokens)
        ids[place, :count] = tokens
        targets[place, : count - 1] = tokens[1:]
        weights[place, : count - 1] = mask[1:]
        lengths[place] = count
    return {
        "ids": ids,
        "targets": targets,
        "weights": weights,
        "lengths": lengths,
        "denominator": np.float32(denominator),
    }


def micro_batches(rows: Rows, step: Step, accumulation: int, shapes: BatchShapes) -> Iterator[MicroBatch]:
    """Exactly `accumulation` of them. google-tunix takes the mean of the micro-batches' losses, and the loss of a step
    is the mean over its target tokens: so each micro-batch's sum is divided by targets / accumulation."""
    denominator = max(1, step.target_tokens) / accumulation
    longest = max(int(rows.lengths[chosen].max()) for chosen in step.micro_batches)
    length = shapes.length(longest)
    for chosen in step.micro_batches:
        yield _micro_batch(rows, chosen, shapes, denominator, length)
    for _ in range(accumulation - len(step.micro_batches)):
        yield _micro_batch(rows, step.micro_batches[0][:0], shapes, denominator, length)
