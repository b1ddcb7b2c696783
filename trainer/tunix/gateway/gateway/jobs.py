"""Jobs and their events, as the database has them. A change and the events that tell of it are one transaction.

Thread-safe. `changed` is called with a job's id after each committed change.
"""

import json
import secrets
import sqlite3
import string
import time
from collections.abc import Callable
from typing import Any

from . import clock
from .accelerators import Accelerator
from .database import Database
from .errors import ApiProblem, not_found
from .idempotency import find_first, remember
from .keys import Caller, require_visible
from .schemas import TERMINAL_STATES, JobRequest

ENDPOINT = "POST /jobs"
_LETTERS = string.ascii_lowercase + string.digits


def is_terminal(state: str) -> bool:
    return state in TERMINAL_STATES


class Jobs:
    def __init__(self, database: Database, public_url: str, default_max_jobs: int) -> None:
        self.database = database
        self._public_url = public_url
        self._default_max_jobs = default_max_jobs
        self.changed: Callable[[str], None] = lambda job_id: None

    # ---- what clients do ----

    def submit(
        self,
        project: str,
        request: JobRequest,
        key: str,
        *,
        accelerator: Accelerator,
        runner_spec: dict[str, Any],
    ) -> tuple[sqlite3.Row, bool]:
        """The job of this key, and whether it is new. Throws ApiProblem."""
        with self.database.write() as connection:
            first = find_first(connection, project, ENDPOINT, key, request)
            if first is not None:
                return self._row(connection, first), False
            ready = connection.execute(
                "SELECT state FROM datasets WHERE id = ? AND project_id = ?", (request.dataset_id, project)
            ).fetchone()
            if ready is None or ready["state"] != "ready":
                raise ApiProblem(
                    409, "dataset_not_ready", f"The data set {request.dataset_id} is not ready", param="dataset_id"
                )
            quota = self.quota(project, accelerator.name)
            if quota["available"] <= 0:
                what = "TPU" if accelerator.kind == "tpu" else accelerator.name
                raise ApiProblem(429, "quota_exceeded", f"{what} quota exceeded")
            job_id = "job_" + "".join(secrets.choice(_LETTERS) for _ in range(16))
            connection.execute(
                "INSERT INTO jobs (id, project_id, experiment_name, accelerator, region, spec, runner_spec, state,"
                " phase, usd_per_hour, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, 'pending', 'queued', ?, ?)",
                (
                    job_id,
                    project,
                    request.experiment_name,
                    accelerator.name,
                    request.resources.region or (accelerator.regions[0] if accelerator.regions else None),
                    request.model_dump_json(),
                    json.dumps({"job_id": job_id} | runner_spec),
                    accelerator.price(request.resources.spot),
                    clock.now(),
                ),
            )
            remember(connection, project, ENDPOINT, key, request, job_id)
            self._status_event(connection, job_id, "pending", "queued", "submitted")
            row = self._row(connection, job_id)
        self.changed(job_id)
        return row, True

    def find_replay(self, project: str, request: JobRequest, key: str) -> sqlite3.Row | None:
        """The job that this key and body made before. Throws ApiProblem 409 for another body."""
        connection = self.database.read()
        first = find_first(connection, project, ENDPOINT, key, request)
        return self._row(connection, first) if first is not None else None

    def quota(self, project: str, accelerator: str) -> dict[str, int]:
        connection = self.database.read()
        row = connection.execute(
            "SELECT max_jobs FROM quotas WHERE project_id = ? AND accelerator = ?", (project, accelerator)
        ).fetchone()
        limit = row["max_jobs"] if row is not None else self._default_max_jobs
        marks = ",".join("?" * len(TERMINAL_STATES))
        in_use = connection.execute(
            f"SELECT count(*) FROM jobs WHERE project_id = ? AND accelerator = ? AND state NOT IN ({marks})",
            (project, accelerator, *TERMINAL_STATES),
        ).fetchone()[0]
        return {"limit": limit, "in_use": in_use, "available": max(0, limit - in_use)}

    def require(self, caller: Caller, job_id: str) -> sqlite3.Row:
        row: sqlite3.Row | None = self.database.read().execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise not_found(f"job {job_id[:64]}")
        require_visible(caller, row["project_id"], f"job {job_id}")
        return row

    def page(
        self,
        projects: tuple[str, ...],
        *,
        state: str | None,
        experiment: str | None,
        after: int | None,
        limit: int,
    ) -> list[sqlite3.Row]:
        """Newest first, below the number `after`; one more than `limit` where there are more."""
        where = [f"project_id IN ({','.join('?' * len(projects))})"]
        values: list[Any] = list(projects)
        for column, value in (("state = ?", state), ("experiment_name = ?", experiment), ("number < ?", after)):
            if value is not None:
                where.append(column)
                values.append(value)
        return (
            self.database.read()
            .execute(
                f"SELECT * FROM jobs WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?", (*values, limit + 1)
            )
            .fetchall()
        )

    def events(self, job_id: str, after: int, limit: int) -> list[dict[str, Any]]:
        rows = self.database.read().execute(
            "SELECT * FROM events WHERE job_id = ? AND seq > ? ORDER BY seq LIMIT ?", (job_id, after, limit)
        )
        return [
            {
                "seq": row["seq"],
                "ts": row["ts"],
                "type": row["type"],
                "level": row["level"],
                "message": row["message"],
                "data": json.loads(row["data"]),
            }
            for row in rows
        ]

    def metrics(self, job_id: str, after_step: int) -> list[str]:
        rows = self.database.read().execute(
            "SELECT line FROM metrics WHERE job_id = ? AND step > ? ORDER BY step", (job_id, after_step)
        )
        return [row["line"] for row in rows]

    def cancel(self, job_id: str, save_checkpoint: bool) -> tuple[sqlite3.Row, bool]:
        """The job, and whether this call is the one that asked for its end. Throws ApiProblem 409."""
        with self.database.write() as connection:
            row = self._row(connection, job_id)
            if is_terminal(row["state"]):
                raise ApiProblem(409, "job_terminal", f"The job {job_id} has ended already: {row['state']}")
            if row["state"] == "cancel_requested":
                return row, False
            connection.execute(
                "UPDATE jobs SET stop_reason = 'cancel', save_on_stop = ? WHERE id = ?", (save_checkpoint, job_id)
            )
            self._set_state(connection, job_id, "cancel_requested", row["phase"], "cancellation requested")
            if row["attempt"] == 0:
                self._end(connection, job_id, "cancelled", None)
            row = self._row(connection, job_id)
        self.changed(job_id)
        return row, True

    # ---- what the worker does ----

    def row(self, job_id: str) -> sqlite3.Row:
        return self._row(self.database.read(), job_id)

    def next_for(self, accelerator: str) -> sqlite3.Row | None:
        """The job to work on: one that was begun, else the oldest that waits."""
        row: sqlite3.Row | None = (
            self.database.read()
            .execute(
                "SELECT * FROM jobs WHERE accelerator = ? AND state IN ('running', 'cancel_requested', 'pending')"
                " ORDER BY state = 'pending', number LIMIT 1",
                (accelerator,),
            )
            .fetchone()
        )
        return row

    def begin_attempt(self, job_id: str, crash: str | None) -> int | None:
        """The number of the attempt; None when the job was cancelled just before. `crash`: why there is another."""
        with self.database.write() as connection:
            row = self._row(connection, job_id)
            if row["attempt"] == 0 and row["state"] != "pending":
                return None
            if crash is not None:
                connection.execute("UPDATE jobs SET crashes = crashes + 1 WHERE id = ?", (job_id,))
                self.add_event(connection, job_id, "log", "warning", crash, {})
            attempt: int = row["attempt"] + 1
            connection.execute(
                "UPDATE jobs SET attempt = ?, started_at = coalesce(started_at, ?) WHERE id = ?",
                (attempt, clock.now(), job_id),
            )
            connection.execute(
                "INSERT INTO attempts VALUES (?, ?, ?, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL)",
                (job_id, attempt, time.time()),
            )
            state = "running" if row["state"] == "pending" else row["state"]
            self._set_state(connection, job_id, state, "provisioning", f"attempt {attempt}")
        self.changed(job_id)
        return attempt

    def attempt(self, job_id: str, attempt: int) -> sqlite3.Row:
        row: sqlite3.Row = (
            self.database.read()
            .execute("SELECT * FROM attempts WHERE job_id = ? AND attempt = ?", (job_id, attempt))
            .fetchone()
        )
        return row

    def mark_spawned(self, job_id: str, attempt: int) -> None:
        with self.database.write() as connection:
            connection.execute("UPDATE attempts SET spawned = 1 WHERE job_id = ? AND attempt = ?", (job_id, attempt))

    def end_attempt(self, job_id: str, attempt: int, ended_at: float, exit_code: int | None, *, stopped: bool) -> None:
        """`stopped`: the gateway asked for its end, so that one without a last word is no crash."""
        last_word = json.dumps({"type": "cancelled"}) if stopped else None
        with self.database.write() as connection:
            connection.execute(
                "UPDATE attempts SET ended_at = ?, exit_code = ?, outcome = coalesce(outcome, ?)"
                " WHERE job_id = ? AND attempt = ? AND ended_at IS NULL",
                (ended_at, exit_code, last_word, job_id, attempt),
            )

    def set_stop_reason(self, job_id: str, reason: str) -> None:
        with self.database.write() as connection:
            connection.execute("UPDATE jobs SET stop_reason = ? WHERE id = ? AND stop_reason IS NULL", (reason, job_id))

    def set_phase(self, job_id: str, phase: str, message: str) -> None:
        with self.database.write() as connection:
            row = self._row(connection, job_id)
            if row["phase"] != phase:
                self._set_state(connection, job_id, row["state"], phase, message)
        self.changed(job_id)

    def log(self, job_id: str, level: str, message: str) -> None:
        with self.database.write() as connection:
            self.add_event(connection, job_id, "log", level, message, {})
        self.changed(job_id)

    def end(
        self,
        job_id: str,
        state: str,
        error: dict[str, Any] | None,
        artifacts: list[dict[str, Any]],
    ) -> None:
        with self.database.write() as connection:
            connection.execute("DELETE FROM artifacts WHERE job_id = ?", (job_id,))
            connection.executemany(
                "INSERT INTO artifacts VALUES (:job_id, :path, :kind, :step, :size, :sha256, :created_at, :file, 0)",
                [{"job_id": job_id, "created_at": clock.now()} | artifact for artifact in artifacts],
            )
            self._end(connection, job_id, state, error)
        self.changed(job_id)

    def busy_seconds(self, job_id: str) -> float:
        """How long runners have worked for the job."""
        total = (
            self.database.read()
            .execute(
                "SELECT coalesce(sum(coalesce(ended_at, ?) - started_at), 0) FROM attempts WHERE job_id = ?",
                (time.time(), job_id),
            )
            .fetchone()[0]
        )
        return max(0.0, float(total))

    def cost(self, row: sqlite3.Row) -> float:
        return round(self.busy_seconds(row["id"]) * float(row["usd_per_hour"]) / 3600, 4)

    # ---- shared ----

    def answer(self, row: sqlite3.Row) -> dict[str, Any]:
        spec = json.loads(row["spec"])
        done = row["step"] / row["total_steps"] if row["total_steps"] else 0.0
        return {
            "id": row["id"],
            "object": "job",
            "project_id": row["project_id"],
            "experiment_name": row["experiment_name"],
            "state": row["state"],
            "phase": row["phase"],
            "progress": 1.0 if row["state"] == "completed" else min(done, 1.0),
            "step": row["step"],
            "total_steps": row["total_steps"],
            "epoch": row["epoch"],
            "loss": row["loss"],
            "created_at": row["created_at"],
            "started_at": row["started_at"],
            "finished_at": row["finished_at"],
            "eta_seconds": None if is_terminal(row["state"]) else row["eta_seconds"],
            "attempt": row["attempt"],
            "restarts": max(0, row["attempt"] - 1),
            "accelerator": row["accelerator"],
            "region": row["region"],
            "spot": spec["resources"]["spot"],
            "cost_usd": self.cost(row),
            "dashboard_url": f"{self._public_url}/jobs/{row['id']}",
            "error": json.loads(row["error"]) if row["error"] else None,
            "spec": spec,
        }

    def add_event(
        self,
        connection: sqlite3.Connection,
        job_id: str,
        kind: str,
        level: str,
        message: str,
        data: dict[str, Any],
        ts: str | None = None,
    ) -> None:
        seq = connection.execute(
            "UPDATE jobs SET last_seq = last_seq + 1 WHERE id = ? RETURNING last_seq", (job_id,)
        ).fetchone()[0]
        connection.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
            (job_id, seq, ts or clock.now(), kind, level, message[:2000], json.dumps(data)),
        )

    def _end(self, connection: sqlite3.Connection, job_id: str, state: str, error: dict[str, Any] | None) -> None:
        connection.execute(
            "UPDATE jobs SET finished_at = ?, error = ?, eta_seconds = NULL WHERE id = ?",
            (clock.now(), json.dumps(error) if error else None, job_id),
        )
        message = f"{error['code']}: {error['message']}" if error else state
        self._set_state(connection, job_id, state, self._row(connection, job_id)["phase"], message)

    def _set_state(self, connection: sqlite3.Connection, job_id: str, state: str, phase: str, message: str) -> None:
        connection.execute("UPDATE jobs SET state = ?, phase = ? WHERE id = ?", (state, phase, job_id))
        self._status_event(connection, job_id, state, phase, message)

    def _status_event(self, connection: sqlite3.Connection, job_id: str, state: str, phase: str, message: str) -> None:
        level = "error" if state in ("failed", "timeout") else "info"
        self.add_event(
            connection, job_id, "status", level, f"{state}, {phase}: {message}", {"state": state, "phase": phase}
        )

    def _row(self, connection: sqlite3.Connection, job_id: str) -> sqlite3.Row:
        row: sqlite3.Row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return row
