"""Data sets: announced with size and digest, uploaded in parts that may be sent again, checked, then never changed.

Each is a folder DATA/datasets/ID with the file content.jsonl. How much of it counts is said by the database, not by the
file's size: a part whose transaction was lost is cut off again. Thread-safe.
"""

import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import clock
from .database import Database
from .errors import ApiProblem, not_found
from .files import sync_folder
from .idempotency import find_first, remember
from .keys import Caller, require_visible
from .rows import check_rows
from .schemas import TERMINAL_STATES, DatasetRequest
from .settings import PART_BYTES

ENDPOINT = "POST /datasets"


class Datasets:
    def __init__(self, database: Database, folder: Path, most_bytes: int) -> None:
        self._database = database
        self._folder = folder
        self._most_bytes = most_bytes
        self._locks_guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def content(self, dataset_id: str) -> Path:
        return self._folder / dataset_id / "content.jsonl"

    def create(self, project: str, request: DatasetRequest, key: str) -> tuple[dict[str, Any], bool, bool]:
        """The data set, whether it is new, and whether the key was seen before."""
        if request.bytes > self._most_bytes:
            raise ApiProblem(413, "too_large", f"bytes: at most {self._most_bytes} here", param="bytes")
        with self._database.write() as connection:
            first = find_first(connection, project, ENDPOINT, key, request)
            row = connection.execute("SELECT * FROM datasets WHERE id = ?", (first,)).fetchone() if first else None
            if row is not None:
                return self.answer(row), False, True
            row = connection.execute(
                "SELECT * FROM datasets WHERE project_id = ? AND sha256 = ? AND bytes = ? AND line_count = ?"
                " AND state = 'ready'",
                (project, request.sha256, request.bytes, request.line_count),
            ).fetchone()
            known = row is not None
            dataset_id = row["id"] if known else f"ds_{secrets.token_hex(8)}"
            if not known:
                connection.execute(
                    "INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'awaiting_upload', 0, '[]', NULL, ?)",
                    (
                        dataset_id,
                        project,
                        request.dataset_key,
                        request.build_id,
                        request.format,
                        request.line_count,
                        request.bytes,
                        request.sha256,
                        json.dumps(request.manifest),
                        clock.now(),
                    ),
                )
                row = connection.execute("SELECT * FROM datasets WHERE id = ?", (dataset_id,)).fetchone()
            remember(connection, project, ENDPOINT, key, request, dataset_id)
            return self.answer(row), not known, False

    def require(self, caller: Caller, dataset_id: str) -> sqlite3.Row:
        row: sqlite3.Row | None = (
            self._database.read().execute("SELECT * FROM datasets WHERE id = ?", (dataset_id,)).fetchone()
        )
        if row is None:
            raise not_found(f"data set {dataset_id}")
        require_visible(caller, row["project_id"], f"data set {dataset_id}")
        return row

    def append(self, caller: Caller, dataset_id: str, first: int, total: int, part: bytes) -> dict[str, Any]:
        """Takes the part that begins where the last one ended; after the last one the rows are checked."""
        with self._lock(dataset_id):
            row = self.require(caller, dataset_id)
            offset = row["received"]
            if (
                row["state"] != "awaiting_upload"
                or first != offset
                or total != row["bytes"]
                or (offset + len(part) > row["bytes"])
            ):
                raise ApiProblem(
                    416,
                    "range_not_satisfiable",
                    f"Content-Range: expected a part from byte {offset} of {row['bytes']}",
                    headers={"Upload-Offset": str(offset)},
                )
            path = self.content(dataset_id)
            path.parent.mkdir(exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.truncate(offset)
                file.seek(offset)
                file.write(part)
                file.flush()
                os.fsync(file.fileno())
            if offset == 0:
                sync_folder(path.parent)
                sync_folder(self._folder)
            with self._database.write() as connection:
                connection.execute("UPDATE datasets SET received = ? WHERE id = ?", (offset + len(part), dataset_id))
            if offset + len(part) == row["bytes"]:
                self._check(dataset_id)
            return self.answer(self.require(caller, dataset_id))

    def recover(self) -> None:
        """What an earlier gateway was about to do: checks that were cut off, folders of deleted data sets."""
        known = {row["id"] for row in self._database.read().execute("SELECT id FROM datasets")}
        for folder in self._folder.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)
        rows = (
            self._database.read()
            .execute("SELECT id FROM datasets WHERE state = 'awaiting_upload' AND received = bytes")
            .fetchall()
        )
        for row in rows:
            with self._lock(row["id"]):
                self._check(row["id"])

    def delete(self, caller: Caller, dataset_id: str) -> None:
        with self._lock(dataset_id):
            self.require(caller, dataset_id)
            with self._database.write() as connection:
                marks = ",".join("?" * len(TERMINAL_STATES))
                used = connection.execute(
                    f"SELECT id FROM jobs WHERE json_extract(spec, '$.dataset_id') = ? AND state NOT IN ({marks})",
                    (dataset_id, *TERMINAL_STATES),
                ).fetchone()
                if used is not None:
                    raise ApiProblem(
                        409, "dataset_in_use", f"The data set {dataset_id} is used by the job {used['id']}"
                    )
                connection.execute("DELETE FROM datasets WHERE id = ?", (dataset_id,))
            shutil.rmtree(self._folder / dataset_id, ignore_errors=True)

    def answer(self, row: sqlite3.Row) -> dict[str, Any]:
        stats = json.loads(row["stats"] or "{}")
        waiting = row["state"] == "awaiting_upload"
        return {
            "id": row["id"],
            "object": "dataset",
            "project_id": row["project_id"],
            "dataset_key": row["dataset_key"],
            "build_id": row["build_id"],
            "format": row["format"],
            "line_count": row["line_count"],
            "bytes": row["bytes"],
            "sha256": row["sha256"],
            "state": row["state"],
            "received_bytes": row["received"],
            "tokens": stats.get("tokens"),
            "target_tokens": stats.get("target_tokens"),
            "longest_row": stats.get("longest_row"),
            "errors": json.loads(row["errors"]),
            "created_at": row["created_at"],
            "upload": {"path": f"/datasets/{row['id']}/content", "max_part_bytes": PART_BYTES} if waiting else None,
        }

    def _check(self, dataset_id: str) -> None:
        row = self._database.read().execute("SELECT * FROM datasets WHERE id = ?", (dataset_id,)).fetchone()
        path = self.content(dataset_id)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != row["sha256"]:
            errors = [{"line": 0, "code": "sha256", "message": f"expected SHA-256 {row['sha256']}, received {digest}"}]
            stats = {}
        else:
            report = check_rows(path, row["line_count"])
            errors = report.errors
            stats = asdict(report) | {"errors": None}
        with self._database.write() as connection:
            connection.execute(
                "UPDATE datasets SET state = ?, errors = ?, stats = ? WHERE id = ?",
                ("invalid" if errors else "ready", json.dumps(errors), json.dumps(stats), dataset_id),
            )
        if errors:
            path.unlink()

    def _lock(self, dataset_id: str) -> threading.Lock:
        with self._locks_guard:
            return self._locks.setdefault(dataset_id, threading.Lock())
