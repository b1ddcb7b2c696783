"""The order of an epoch's rows: the same pure function of (seed, epoch, position) as data/batches/sample_order.cc."""

from __future__ import annotations

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


def _mix(x: int) -> int:
    """The output function of SplitMix64."""
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & _WORD
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & _WORD
    return x ^ x >> 31


def _mix_array(x: np.ndarray) -> np.ndarray:
    x = x ^ x >> np.uint64(30)
    x = x * np.uint64(0xBF58476D1CE4E5B9)  # wraps, as it must
    x = x ^ x >> np.uint64(27)
    x = x * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def epoch_order(seed: int, epoch: int, rows: int, shuffle: bool) -> np.ndarray:
    """Row indices of the whole epoch: [rows] int64."""
    if not shuffle:
        return np.arange(rows, dtype=np.int64)
    half = 1
    while half < 31 and 1 << 2 * half < rows:
        half += 1
    state = _mix(_mix(seed + _GOLDEN & _WORD) ^ epoch)
    keys = []
    for _ in range(6):
        state = state + _GOLDEN & _WORD
        keys.append(np.uint64(_mix(state)))
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    value = np.arange(rows, dtype=np.uint64)
    outside = np.ones(rows, dtype=bool)
    while outside.any():  # walk the cycle until each is back inside
        walking = value[outside]
        left, right = walking >> bits, walking & mask
        for key in keys:
            left, right = right, left ^ _mix_array(key ^ right) & mask
        value[outside] = left << bits | right
        outside = value >= rows
    return value.astype(np.int64)
