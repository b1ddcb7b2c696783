"""So many requests a second for each key, and twice as many at once. Thread-safe."""

import threading
import time

from .errors import ApiProblem


class RateLimit:
    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._burst = 2 * per_second
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}  # key's id -> (tokens, when)

    def take(self, key_id: str) -> None:
        """Throws ApiProblem 429."""
        now = time.monotonic()
        with self._lock:
            tokens, then = self._buckets.get(key_id, (self._burst, now))
            tokens = min(self._burst, tokens + (now - then) * self._per_second)
            if tokens < 1:
                self._buckets[key_id] = (tokens, now)
                raise ApiProblem(429, "rate_limited", "Too many requests with this key", retry_after=1)
            self._buckets[key_id] = (tokens - 1, now)
