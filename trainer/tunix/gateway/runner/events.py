"""Events: one JSON object a line on stdout, each written by one call (../RUNNER.md)."""

from __future__ import annotations

import datetime
import json
import math
import os
import sys
from typing import Any


def utc_timestamp() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"


def json_number(value: float) -> float | str:
    """JSON has no numbers that are not finite: these travel as text."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


class EventWriter:
    """Numbers the events of this attempt from 1. One thread at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seq = 0

    def emit(self, kind: str, **members: Any) -> None:
        self._seq += 1
        event = {"seq": self._seq, "ts": utc_timestamp(), "type": kind}
        for name, value in members.items():
            event[name] = json_number(value) if isinstance(value, float) else value
        line = (json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n").encode()
        while line:
            line = line[os.write(self._descriptor, line) :]


def take_stdout() -> EventWriter:
    """Events get stdout for themselves; whatever a library prints goes to stderr."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return EventWriter(descriptor)
