"""Events of a runner -> what they change: the job's row, its events, its metrics.

Each batch is one transaction together with the place up to which the runner's output was read, so that nothing is
missed or counted twice.
"""

import json
import math
import sqlite3
from typing import Any

from . import clock
from .jobs import Jobs

_STEP_NUMBERS = ("epoch", "loss", "learning_rate", "grad_norm", "tokens", "target_tokens", "tokens_per_second")
OUTCOMES = ("completed", "cancelled", "failed")


def apply_events(jobs: Jobs, job_id: str, attempt: int, events: list[dict[str, Any]], offset: int) -> None:
    with jobs.database.write() as connection:
        for event in events:
            _Applied(jobs, connection, job_id, attempt, event).apply()
        connection.execute("UPDATE attempts SET offset = ? WHERE job_id = ? AND attempt = ?", (offset, job_id, attempt))
    jobs.changed(job_id)


class _Applied:
    def __init__(
        self, jobs: Jobs, connection: sqlite3.Connection, job_id: str, attempt: int, event: dict[str, Any]
    ) -> None:
        self._jobs = jobs
        self._connection = connection
        self._job_id = job_id
        self._attempt = attempt
        self._event = event

    def apply(self) -> None:
        kind = self._event["type"]
        if kind == "started":
            total = _whole(self._event.get("total_steps")) or 0
            self._connection.execute("UPDATE jobs SET total_steps = ? WHERE id = ?", (total, self._job_id))
            resumed = _whole(self._event.get("resumed_from"))
            self._phase("loading", f"{total} steps" if resumed is None else f"resumed from step {resumed} of {total}")
        elif kind == "model_loaded":
            self._phase(
                "compiling",
                f"{_whole(self._event.get('params')) or 0} weights, "
                f"{_whole(self._event.get('trained_params')) or 0} of them trained",
            )
        elif kind == "compiled":
            self._phase("training", f"compiled in {_number(self._event.get('seconds')) or 0:.1f} s")
        elif kind == "step":
            self._step()
        elif kind == "checkpoint":
            step, size = _whole(self._event.get("step")) or 0, _whole(self._event.get("bytes")) or 0
            self._connection.execute(  # a job that gets on may crash again
                "UPDATE jobs SET checkpoint_step = ?, crashes = 0 WHERE id = ? AND checkpoint_step < ?",
                (step, self._job_id, step),
            )
            self._add("checkpoint", "info", f"checkpoint of step {step}, {size} bytes", {"step": step, "bytes": size})
        elif kind == "exported":
            self._set("exported", json.dumps(self._event.get("files")))
            self._phase("saving", "the model is written")
        elif kind in OUTCOMES:
            self._set("outcome", json.dumps(self._event))
        else:
            level = "warning" if kind == "warning" else "info"
            message = self._event.get("message")
            self._add("log", level, message if isinstance(message, str) else json.dumps(self._event), {})

    def _step(self) -> None:
        step = _whole(self._event.get("step"))
        if step is None:
            self._add("log", "warning", "the runner told of a step without its number", {})
            return
        line = {"step": step} | {name: self._event.get(name) for name in _STEP_NUMBERS}
        line["timestamp"] = self._ts()
        self._connection.execute(
            "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?)", (self._job_id, step, json.dumps(line))
        )
        seconds = clock.seconds_of(self._ts())
        first = self._connection.execute(
            "UPDATE attempts SET first_step = coalesce(first_step, ?), first_step_at = coalesce(first_step_at, ?)"
            " WHERE job_id = ? AND attempt = ? RETURNING first_step, first_step_at",
            (step, seconds, self._job_id, self._attempt),
        ).fetchone()
        total = self._connection.execute("SELECT total_steps FROM jobs WHERE id = ?", (self._job_id,)).fetchone()[0]
        eta = None
        if step > first["first_step"] and total >= step:
            eta = (total - step) * max(0.0, seconds - first["first_step_at"]) / (step - first["first_step"])
        self._connection.execute(
            "UPDATE jobs SET step = ?, epoch = ?, loss = ?, eta_seconds = ? WHERE id = ?",
            (step, _number(line["epoch"]), _number(line["loss"]), eta, self._job_id),
        )
        self._phase("training", "the first step is done")
        self._add("metric", "info", f"step {step} of {total}, loss {line['loss']}", line)

    def _phase(self, phase: str, message: str) -> None:
        row = self._connection.execute("SELECT state, phase FROM jobs WHERE id = ?", (self._job_id,)).fetchone()
        if row["phase"] == phase:
            return
        self._connection.execute("UPDATE jobs SET phase = ? WHERE id = ?", (phase, self._job_id))
        self._add("status", "info", f"{row['state']}, {phase}: {message}", {"state": row["state"], "phase": phase})

    def _set(self, column: str, text: str) -> None:
        self._connection.execute(
            f"UPDATE attempts SET {column} = ? WHERE job_id = ? AND attempt = ?", (text, self._job_id, self._attempt)
        )

    def _add(self, kind: str, level: str, message: str, data: dict[str, Any]) -> None:
        self._jobs.add_event(self._connection, self._job_id, kind, level, message, data, self._ts())

    def _ts(self) -> str:
        ts = self._event.get("ts")
        try:
            return clock.text_of(clock.seconds_of(ts)) if isinstance(ts, str) else clock.now()
        except ValueError:
            return clock.now()


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**62 else None


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None
