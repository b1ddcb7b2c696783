"""The uploaded rows: {"id", "input_ids", "loss_mask"} a line, in the order of the native engine's index."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from runner.failure import RunnerError
from runner.job_spec import Data


class Rows:
    """All rows of a job in three flat arrays. Immutable."""

    def __init__(self, ids: np.ndarray, mask: np.ndarray, offsets: np.ndarray) -> None:
        self._ids = ids  # [tokens] int32
        self._mask = mask  # [tokens] bool: the token is one that is to be learnt
        self._offsets = offsets  # [rows + 1]
        self.lengths = np.diff(offsets)  # [rows]
        learnt = np.concatenate([[0], np.cumsum(mask)])
        self.targets = learnt[offsets[1:]] - learnt[offsets[:-1]]  # [rows]; the first token is never one

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, row: int) -> np.ndarray:
        return self._ids[self._offsets[row] : self._offsets[row + 1]]

    def mask(self, row: int) -> np.ndarray:
        return self._mask[self._offsets[row] : self._offsets[row + 1]]


def _problem(row: object, vocab_size: int, max_seq_length: int) -> str | None:
    if not isinstance(row, dict) or not {"input_ids", "loss_mask"} <= row.keys():
        return "expected an object with input_ids and loss_mask"
    ids, mask = row["input_ids"], row["loss_mask"]
    if not isinstance(ids, list) or not isinstance(mask, list) or not ids or len(ids) != len(mask):
        return "input_ids and loss_mask must be lists of one length, not empty"
    if any(type(token) is not int or not 0 <= token < vocab_size for token in ids):
        return f"input_ids must be whole numbers from 0 and below the model's vocabulary of {vocab_size}"
    if any(type(flag) is not int or flag not in (0, 1) for flag in mask):
        return "loss_mask must hold 0 and 1"
    if mask[0] != 0 or 1 not in mask:
        return "loss_mask must begin with 0 and hold a 1"
    if len(ids) > max_seq_length:
        return f"{len(ids)} tokens, and training.max_seq_length is {max_seq_length}"
    return None


def load_rows(data: Data, vocab_size: int, max_seq_length: int) -> Rows:
    """Raises RunnerError(data_invalid) for another file than the spec names, or a row that cannot be trained on."""
    digest = hashlib.sha256()
    ids: list[np.ndarray] = []
    mask: list[np.ndarray] = []
    offsets = [0]
    with data.path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            digest.update(line)
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RunnerError("data_invalid", f"{data.path}:{number}: not JSON: {error}") from error
            problem = _problem(row, vocab_size, max_seq_length)
            if problem:
                raise RunnerError("data_invalid", f"{data.path}:{number}: {problem}")
            ids.append(np.array(row["input_ids"], dtype=np.int32))
            mask.append(np.array(row["loss_mask"], dtype=bool))
            offsets.append(offsets[-1] + len(ids[-1]))
    if digest.hexdigest() != data.sha256:
        raise RunnerError(
            "data_invalid", f"{data.path}: its SHA-256 is {digest.hexdigest()}, the job's is {data.sha256}"
        )
    if not ids:
        raise RunnerError("data_invalid", f"{data.path}: no rows")
    rows = Rows(np.concatenate(ids), np.concatenate(mask), np.array(offsets, dtype=np.int64))
    found = {
        "rows": len(rows),
        "tokens": offsets[-1],
        "target_tokens": int(rows.targets.sum()),
        "longest_row": int(rows.lengths.max()),
    }
    for name, value in found.items():
        if getattr(data, name) != value:
            raise RunnerError(
                "data_invalid", f"{data.path}: {name} is {value}, the job's data.{name} {getattr(data, name)}"
            )
    return rows
