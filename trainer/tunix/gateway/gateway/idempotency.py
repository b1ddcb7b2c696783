"""One key, one thing made: the key, a digest of what was asked and the thing are written in one transaction."""

import hashlib
import sqlite3

from . import clock
from .errors import ApiProblem
from .schemas import Request


def require_key(key: str | None) -> str:
    if key is None or not 1 <= len(key) <= 128 or not key.isascii() or not key.isprintable():
        raise ApiProblem(
            400, "bad_request", "Idempotency-Key: required, 1 to 128 printable characters", param="Idempotency-Key"
        )
    return key


def find_first(connection: sqlite3.Connection, project: str, endpoint: str, key: str, request: Request) -> str | None:
    """The thing that this key made before. Throws ApiProblem 409 when it made it from another body."""
    row = connection.execute(
        "SELECT body_sha256, resource_id FROM idempotency WHERE project_id = ? AND endpoint = ? AND key = ?",
        (project, endpoint, key),
    ).fetchone()
    if row is None:
        return None
    if row["body_sha256"] != _digest(request):
        raise ApiProblem(
            409,
            "idempotency_conflict",
            "This Idempotency-Key was used for another body; take a new one for a new job",
            param="Idempotency-Key",
        )
    resource: str = row["resource_id"]
    return resource


def remember(
    connection: sqlite3.Connection, project: str, endpoint: str, key: str, request: Request, resource: str
) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?, ?)",
        (project, endpoint, key, _digest(request), resource, clock.now()),
    )


def _digest(request: Request) -> str:
    return hashlib.sha256(request.model_dump_json().encode()).hexdigest()
