"""One attempt of the runner as a process (../RUNNER.md). It outlives the gateway: what ties them is the job's folder.

A lock on runner.lock tells whether an attempt lives. The gateway takes it before the process exists and hands the
descriptor down, so that there is no moment at which two could start, or at which one is taken for dead that has only
not begun yet.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_KEPT = ("JAX_", "XLA_", "TPU_", "LIBTPU_", "CUDA_", "NVIDIA_", "LD_LIBRARY_PATH")
_CHUNK = 1024 * 1024
_LONGEST_LINE = 16 * 1024 * 1024


class RunnerProcess:
    def __init__(self, workdir: Path, attempt: int) -> None:
        self._workdir = workdir
        self._folder = workdir / f"attempt-{attempt}"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def exit_code(self) -> int | None:
        """Of a process that this gateway started; of one that it found, nobody can tell."""
        return self._child.poll() if self._child is not None else None

    @property
    def log(self) -> Path:
        return self._folder / "runner.log"

    def is_alive(self) -> bool:
        if self._child is not None and self._child.poll() is not None:
            self.kill()  # what it left running
        try:
            descriptor = os.open(self._workdir / "runner.lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    def start(self, command: Sequence[str], caches: Path, resume: bool) -> bool:
        """False: one is alive already, and is to be followed instead. Throws OSError."""
        lock = os.open(self._workdir / "runner.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            scratch = self._workdir / "scratch"
            shutil.rmtree(scratch, ignore_errors=True)
            for folder in (scratch, self._folder, caches):
                folder.mkdir(parents=True, exist_ok=True)
            words = [*command, "--spec", str(self._workdir / "job.json"), "--workdir", str(self._workdir)]
            with (self._folder / "events.jsonl").open("ab") as events, self.log.open("ab") as log:
                self._child = subprocess.Popen(
                    words + (["--resume"] if resume else []),
                    cwd=self._workdir,
                    stdin=subprocess.DEVNULL,
                    stdout=events,
                    stderr=log,
                    env=_environment(scratch, caches),
                    pass_fds=(lock,),
                    start_new_session=True,
                )
            return True
        finally:
            os.close(lock)

    def ended_at(self) -> float:
        """When it was last heard of: of a process that ended unseen, the best that is known."""
        if self._child is not None:
            return time.time()
        try:
            return (self._folder / "events.jsonl").stat().st_mtime
        except FileNotFoundError:
            return time.time()

    def send_stop(self) -> None:
        for pid in self._holders():
            if os.getsid(pid) == pid:  # the runner itself; what it started is its own affair
                _send(pid, signal.SIGTERM)

    def kill(self) -> None:
        for pid in self._holders():
            _send(pid, signal.SIGKILL)

    def read_events(self, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Whole lines from `offset` on, at most a chunk of them, and the offset behind them."""
        try:
            with (self._folder / "events.jsonl").open("rb") as file:
                file.seek(offset)
                text = file.read(_CHUNK)
                while text and b"\n" not in text and len(text) < _LONGEST_LINE:
                    more = file.read(_CHUNK)
                    if not more:
                        break
                    text += more
        except FileNotFoundError:
            return [], offset
        end = text.rfind(b"\n") + 1
        if not end and len(text) >= _LONGEST_LINE:
            end = len(text)
        return [_event(line) for line in text[:end].splitlines() if line.strip()], offset + end

    def last_words(self) -> str:
        """The end of the log, for a message."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 2000))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return " | ".join(line.strip() for line in lines[-3:])[-500:]

    def _holders(self) -> list[int]:
        """The processes that hold the lock's descriptor: found this way, no number of a dead process is ever used."""
        path = self._workdir / "runner.lock"
        try:
            wanted = path.stat()
        except FileNotFoundError:
            return []
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                descriptors = list((entry / "fd").iterdir())
            except OSError:
                continue
            for descriptor in descriptors:
                try:
                    status = descriptor.stat()
                except OSError:
                    continue
                if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                    found.append(int(entry.name))
                    break
        return found


def _send(pid: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, what)


def _environment(scratch: Path, caches: Path) -> dict[str, str]:
    """What the runner sees: no secret of the gateway's own surroundings."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(scratch),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(scratch),
        "JAX_COMPILATION_CACHE_DIR": str(caches),
    } | kept


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("type"), str):
            return event
    except (ValueError, RecursionError):
        pass
    return {"type": "log", "message": line[:500].decode(errors="replace")}
