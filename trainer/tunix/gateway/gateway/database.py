"""The gateway's memory: one SQLite file. What a transaction has committed survives the process and the machine."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE keys (
  id TEXT PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, prefix TEXT NOT NULL, last4 TEXT NOT NULL, name TEXT NOT NULL,
  projects TEXT NOT NULL, scopes TEXT NOT NULL, created_at TEXT NOT NULL, expires_at TEXT, revoked_at TEXT);
CREATE TABLE quotas (
  project_id TEXT NOT NULL, accelerator TEXT NOT NULL, max_jobs INTEGER NOT NULL,
  PRIMARY KEY (project_id, accelerator)) WITHOUT ROWID;
CREATE TABLE datasets (
  id TEXT PRIMARY KEY, project_id TEXT NOT NULL, dataset_key TEXT NOT NULL, build_id TEXT, format TEXT NOT NULL,
  line_count INTEGER NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, manifest TEXT, state TEXT NOT NULL,
  received INTEGER NOT NULL, errors TEXT NOT NULL, stats TEXT, created_at TEXT NOT NULL);
CREATE INDEX datasets_by_digest ON datasets (project_id, sha256);
CREATE TABLE idempotency (
  project_id TEXT NOT NULL, endpoint TEXT NOT NULL, key TEXT NOT NULL, body_sha256 TEXT NOT NULL,
  resource_id TEXT NOT NULL, created_at TEXT NOT NULL, PRIMARY KEY (project_id, endpoint, key)) WITHOUT ROWID;
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, project_id TEXT NOT NULL,
  experiment_name TEXT NOT NULL, accelerator TEXT NOT NULL, region TEXT, spec TEXT NOT NULL, runner_spec TEXT NOT NULL,
  state TEXT NOT NULL, phase TEXT NOT NULL, step INTEGER NOT NULL DEFAULT 0, total_steps INTEGER NOT NULL DEFAULT 0,
  epoch REAL, loss REAL, eta_seconds REAL, usd_per_hour REAL, created_at TEXT NOT NULL, started_at TEXT,
  finished_at TEXT, attempt INTEGER NOT NULL DEFAULT 0, crashes INTEGER NOT NULL DEFAULT 0,
  checkpoint_step INTEGER NOT NULL DEFAULT 0, stop_reason TEXT,
  save_on_stop INTEGER NOT NULL DEFAULT 1, last_seq INTEGER NOT NULL DEFAULT 0, error TEXT);
CREATE INDEX jobs_by_project ON jobs (project_id, number);
CREATE INDEX jobs_by_state ON jobs (state, accelerator, number);
CREATE TABLE attempts (
  job_id TEXT NOT NULL, attempt INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL, spawned INTEGER NOT NULL,
  offset INTEGER NOT NULL, first_step INTEGER, first_step_at REAL, outcome TEXT, exported TEXT, exit_code INTEGER,
  PRIMARY KEY (job_id, attempt)) WITHOUT ROWID;
CREATE TABLE events (
  job_id TEXT NOT NULL, seq INTEGER NOT NULL, ts TEXT NOT NULL, type TEXT NOT NULL, level TEXT NOT NULL,
  message TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (job_id, seq)) WITHOUT ROWID;
CREATE TABLE metrics (
  job_id TEXT NOT NULL, step INTEGER NOT NULL, line TEXT NOT NULL, PRIMARY KEY (job_id, step)) WITHOUT ROWID;
CREATE TABLE artifacts (
  job_id TEXT NOT NULL, path TEXT NOT NULL, kind TEXT NOT NULL, step INTEGER, size INTEGER NOT NULL,
  sha256 TEXT NOT NULL, created_at TEXT NOT NULL, file TEXT NOT NULL, deleting INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (job_id, path)) WITHOUT ROWID;
"""


class Database:
    """Connections to one file, one per thread. Reads see the last commit; writes come one after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.local()
        self._writing = threading.Lock()
        with self.write() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            elif version != _SCHEMA_VERSION:
                raise RuntimeError(f"{path}: made by another version of the gateway (schema {version})")

    def read(self) -> sqlite3.Connection:
        """This thread's connection. Each statement sees one committed state."""
        connection: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=60, isolation_level=None, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            self._threads.connection = connection
        return connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on the disk when the block has ended, or nothing of it."""
        connection = self.read()
        with self._writing:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
