"""The values are those of tests/data/batches/sample_order_test.cc."""

from __future__ import annotations

import numpy as np
import pytest
from runner.sample_order import epoch_order


def test_the_order_is_the_documented_one() -> None:
    assert epoch_order(42, 0, 10, True).tolist() == [3, 1, 4, 8, 2, 6, 5, 7, 0, 9]
    assert epoch_order(42, 1, 10, True).tolist() == [5, 9, 6, 1, 2, 7, 4, 8, 0, 3]


def test_without_shuffling_it_is_the_files() -> None:
    assert epoch_order(42, 3, 5, False).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 16, 17, 64, 65, 1000, 100_000])
def test_every_row_is_visited_once(rows: int) -> None:
    for seed in (0, 42, 2**63 - 1):
        assert np.array_equal(np.sort(epoch_order(seed, 5, rows, True)), np.arange(rows))
