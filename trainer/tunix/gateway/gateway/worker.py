"""One accelerator's jobs, one after the other: a thread that starts the runner, follows it and says how it ended.

What it knows is in the database and in the job's folder, so that a worker of a restarted gateway goes on where the last
one was killed: it reads on from a runner that lives, and starts the next attempt of one that does not.
"""

import json
import logging
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from . import CONTRACT, VERSION
from .accelerators import Accelerator
from .artifacts import checkpoint_artifacts, copy_out, describe, exported_artifacts
from .files import write_durably
from .jobs import Jobs
from .outputs import output_folder
from .progress import apply_events
from .runner_process import RunnerProcess
from .settings import Settings

_LOG = logging.getLogger("gateway")
_POLL_SECONDS = 0.1
_CRASH_PAUSE_SECONDS = 1.0
_ASK_AGAIN_SECONDS = 10.0


class Worker(threading.Thread):
    """After `begin_stop` the runner is asked to save and end, and the thread ends; the next gateway goes on."""

    def __init__(self, settings: Settings, jobs: Jobs, accelerator: Accelerator) -> None:
        super().__init__(name=f"worker-{accelerator.name}", daemon=True)
        self._settings = settings
        self._jobs = jobs
        self._accelerator = accelerator
        self._stopping = threading.Event()
        self._wake = threading.Event()

    def wake(self) -> None:
        self._wake.set()

    def begin_stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            job = self._jobs.next_for(self._accelerator.name)
            if job is None:
                self._wake.wait(5)
                continue
            try:
                self._work(job["id"])
            except Exception:  # a fault of the gateway's own or of its disk: the job waits, the log says why
                _LOG.exception("job %s: the worker failed and tries again", job["id"])
                self._stopping.wait(5)

    def _work(self, job_id: str) -> None:
        """Until the job has ended or the gateway is to stop."""
        while not self._stopping.is_set():
            row = self._jobs.row(job_id)
            attempt: int = row["attempt"]
            known = self._jobs.attempt(job_id, attempt) if attempt else None
            if known is None or known["ended_at"] is not None:
                crash = None
                if known is not None:
                    has_ended, crash = self._conclude(job_id, attempt)
                    if has_ended:
                        return
                begun = self._jobs.begin_attempt(job_id, crash)
                if begun is None:
                    return
                attempt = begun
            self._follow(job_id, attempt)

    # ---- one attempt ----

    def _workdir(self, job_id: str) -> Path:
        return self._settings.data / "jobs" / job_id

    def _follow(self, job_id: str, attempt: int) -> None:
        workdir = self._workdir(job_id)
        workdir.mkdir(parents=True, exist_ok=True)
        if not (workdir / "job.json").exists():
            write_durably(workdir / "job.json", self._jobs.row(job_id)["runner_spec"] + "\n")
        process = RunnerProcess(workdir, attempt)
        if not self._jobs.attempt(job_id, attempt)["spawned"] and not process.is_alive():
            resume = attempt > 1 or (workdir / "checkpoints").exists()
            try:
                process.start(self._settings.runner, self._settings.data / "compiled", resume=resume)
            except OSError as problem:
                self._jobs.log(job_id, "error", f"the runner could not be started: {problem}")
        self._jobs.mark_spawned(job_id, attempt)
        stop = _Stop(process, self._settings.grace_seconds)
        offset: int = self._jobs.attempt(job_id, attempt)["offset"]
        while True:
            alive = process.is_alive()
            events, end = process.read_events(offset)
            if end != offset:
                apply_events(self._jobs, job_id, attempt, events, end)
                offset = end
            elif not alive:
                break
            self._enforce(job_id, stop)
            if not self._stopping.wait(_POLL_SECONDS):
                continue
            time.sleep(_POLL_SECONDS)  # that wait is over at once for a gateway that stops
        self._jobs.end_attempt(job_id, attempt, process.ended_at(), process.exit_code, stopped=stop.asked)

    def _enforce(self, job_id: str, stop: "_Stop") -> None:
        row = self._jobs.row(job_id)
        reason = row["stop_reason"] or self._limit_reached(row)
        if reason is not None and row["stop_reason"] is None:
            self._jobs.set_stop_reason(job_id, reason)
        if reason is not None and not row["save_on_stop"]:
            stop.force()
        elif reason is not None or self._stopping.is_set():
            stop.ask()

    def _limit_reached(self, row: sqlite3.Row) -> str | None:
        spec = json.loads(row["spec"])
        limits = [limit for limit in (spec["timeout_seconds"], self._accelerator.max_seconds) if limit is not None]
        if limits and self._jobs.busy_seconds(row["id"]) >= min(limits):
            return "timeout"
        if spec["max_cost_usd"] is not None and self._jobs.cost(row) >= spec["max_cost_usd"]:
            return "cost"
        return None

    # ---- how it ended ----

    def _conclude(self, job_id: str, attempt: int) -> tuple[bool, str | None]:
        """Has the job ended with this attempt, which is over? If not: what went wrong, when something did."""
        row, last = self._jobs.row(job_id), self._jobs.attempt(job_id, attempt)
        outcome = json.loads(last["outcome"]) if last["outcome"] else {"type": None}
        if outcome["type"] == "completed":
            self._complete(job_id, attempt, json.loads(last["exported"] or "null"))
            return True, None
        if row["stop_reason"] is not None:
            self._end_stopped(job_id, row["stop_reason"])
            return True, None
        if outcome["type"] == "failed" and outcome.get("retryable") is not True:
            self._end(job_id, "failed", _job_error(outcome))
            return True, None
        if outcome["type"] == "cancelled":  # by somebody else, or by a gateway that had to stop
            self._jobs.set_phase(job_id, "preempted", "stopped with its state saved; it goes on")
            return False, None
        words = RunnerProcess(self._workdir(job_id), attempt).last_words()
        code = last["exit_code"]
        how = f" (exit {code})" if code is not None and code >= 0 else f" (signal {-code})" if code is not None else ""
        what = (
            f"attempt {attempt} crashed{how}"
            if outcome["type"] is None
            else f"attempt {attempt}: {outcome.get('message')}"
        )
        if row["crashes"] >= self._settings.max_restarts:
            error = (
                _job_error(outcome)
                if outcome["type"]
                else {
                    "code": "runner_crashed",
                    "message": f"{what}: {words}"[:2000],
                    "retryable": True,
                    "hint": "the job's log has more",
                }
            )
            self._end(job_id, "failed", error)
            return True, None
        self._stopping.wait(_CRASH_PAUSE_SECONDS)
        return False, f"{what}; it is started again. {words}"

    def _complete(self, job_id: str, attempt: int, files: Any) -> None:
        workdir = self._workdir(job_id)
        spec = json.loads(self._jobs.row(job_id)["spec"])
        self._jobs.set_phase(job_id, "saving", "the files are checked")
        try:
            model = exported_artifacts(workdir, files)
        except ValueError as problem:
            self._end(job_id, "failed", {"code": "integrity", "message": str(problem), "retryable": True, "hint": None})
            return
        manifest = {
            "job_id": job_id,
            "contract": CONTRACT,
            "gateway": VERSION,
            "attempts": attempt,
            "spec": spec,
            "files": [{key: artifact[key] for key in ("path", "size", "sha256")} for artifact in model],
        }
        write_durably(workdir / "gateway" / "run_manifest.json", json.dumps(manifest, indent=2) + "\n")
        error = None
        uri = spec["output"]["uri"]
        if uri is not None:
            self._jobs.set_phase(job_id, "uploading", f"the model is copied to {uri}")
            try:
                copy_out(workdir, model, output_folder(uri, self._settings.outputs))
            except (OSError, ValueError) as problem:
                error = {
                    "code": "output_not_written",
                    "message": f"the model could not be copied to {uri}: {problem}",
                    "retryable": False,
                    "hint": "the model is here: download it",
                }
        self._end(job_id, "completed", error, model)

    def _end_stopped(self, job_id: str, reason: str) -> None:
        if reason == "cancel":
            self._end(job_id, "cancelled", None)
        elif reason == "timeout":
            self._end(
                job_id,
                "timeout",
                {
                    "code": "timeout",
                    "message": "the job's time is over",
                    "retryable": True,
                    "hint": "raise tunix.timeout_seconds, or train fewer steps",
                },
            )
        else:
            self._end(
                job_id,
                "failed",
                {
                    "code": "cost_limit_exceeded",
                    "message": "the job has cost as much as it may",
                    "retryable": True,
                    "hint": "raise tunix.max_cost_usd, or train fewer steps",
                },
            )

    def _end(
        self, job_id: str, state: str, error: dict[str, Any] | None, model: list[dict[str, Any]] | None = None
    ) -> None:
        workdir = self._workdir(job_id)
        metrics = "".join(line + "\n" for line in self._jobs.metrics(job_id, -1))
        write_durably(workdir / "gateway" / "metrics.jsonl", metrics)
        artifacts = list(model or [])
        for file, path, kind in (
            ("gateway/metrics.jsonl", "metrics.jsonl", "metrics"),
            ("gateway/run_manifest.json", "run_manifest.json", "run_manifest"),
        ):
            if (workdir / file).exists():
                artifacts.append(describe(workdir, file, path, kind))
        for attempt in range(1, self._jobs.row(job_id)["attempt"] + 1):
            if (workdir / f"attempt-{attempt}" / "runner.log").exists():
                artifacts.append(
                    describe(workdir, f"attempt-{attempt}/runner.log", f"logs/attempt-{attempt}.log", "log")
                )
        artifacts += checkpoint_artifacts(workdir)
        self._jobs.end(job_id, state, error, artifacts)


class _Stop:
    """The end of one runner: asked for, again now and then (it may not have been listening yet), forced in the end."""

    def __init__(self, process: RunnerProcess, grace_seconds: float) -> None:
        self._process = process
        self._grace_seconds = grace_seconds
        self._first: float | None = None
        self._last = 0.0

    @property
    def asked(self) -> bool:
        return self._first is not None

    def ask(self) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
        if now - self._first > self._grace_seconds:
            self.force()
        elif now - self._last > _ASK_AGAIN_SECONDS:
            self._last = now
            self._process.send_stop()

    def force(self) -> None:
        self._process.kill()


def _job_error(outcome: dict[str, Any]) -> dict[str, Any]:
    code, message, hint = (outcome.get(name) for name in ("code", "message", "hint"))
    return {
        "code": code if isinstance(code, str) else "internal",
        "message": (message if isinstance(message, str) else "the runner gave no reason")[:2000],
        "retryable": outcome.get("retryable") is True,
        "hint": hint if isinstance(hint, str) else None,
    }
