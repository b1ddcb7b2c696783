"""Times as the service writes them: UTC, milliseconds, "2026-01-02T03:04:05.678Z"."""

import re
import time
from datetime import UTC, datetime, timedelta


def now() -> str:
    return text_of(time.time())


def text_of(seconds: float) -> str:
    whole = datetime.fromtimestamp(seconds, UTC)
    return whole.strftime("%Y-%m-%dT%H:%M:%S.") + f"{whole.microsecond // 1000:03d}Z"


def seconds_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def parse_duration(text: str) -> timedelta:
    """ "90d", "12h", "30m" or "45s". Throws ValueError."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    if match is None:
        raise ValueError(f"{text}: expected a number and s, m, h or d, such as 90d")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
    return timedelta(**{unit: int(match[1])})
