"""Wakes requests that wait for news of a job. Rung from any thread; waited for on the event loop."""

import asyncio
from collections import defaultdict
from contextlib import suppress


class Bell:
    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._closed = False

    def open(self) -> None:
        """On the event loop that will wait."""
        self._loop = asyncio.get_running_loop()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """On the event loop: whoever waits is woken, and nobody waits any more."""
        self._closed = True
        for events in self._waiting.values():
            for event in events:
                event.set()

    def ring(self, job_id: str) -> None:
        if self._loop is not None and not self._loop.is_closed():
            with suppress(RuntimeError):  # the loop has just ended, and who waited with it
                self._loop.call_soon_threadsafe(self._ring, job_id)

    def listen(self, job_id: str) -> "_Listening":
        return _Listening(self, job_id)

    def _ring(self, job_id: str) -> None:
        for event in self._waiting.get(job_id, ()):
            event.set()


class _Listening:
    """From its begin on no ring is missed: look at the database inside, then wait."""

    def __init__(self, bell: Bell, job_id: str) -> None:
        self._bell = bell
        self._job_id = job_id
        self._event = asyncio.Event()

    def __enter__(self) -> "_Listening":
        self._bell._waiting[self._job_id].add(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        waiting = self._bell._waiting[self._job_id]
        waiting.discard(self._event)
        if not waiting:
            del self._bell._waiting[self._job_id]

    async def wait(self, seconds: float) -> bool:
        """Until there may be news; False when the time is over before."""
        if not self._bell.closed:
            try:
                await asyncio.wait_for(self._event.wait(), seconds)
            except TimeoutError:
                return False
            self._event.clear()
        return True
