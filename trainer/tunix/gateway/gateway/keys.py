"""API keys. A key is shown once, when it is made; the database holds its SHA-256.

A key is 256 random bits, so that a plain digest cannot be turned back; a slow hash is for passwords.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from . import clock
from .database import Database
from .errors import ApiProblem, not_found

SCOPES = ("jobs:read", "jobs:write", "datasets:read", "datasets:write")
KINDS = ("dev", "prod")
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_KEY = re.compile(r"tunix_sk_(dev|prod)_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Caller:
    """Who sent a request, as its key says."""

    key_id: str
    prefix: str
    last4: str
    expires_at: str | None
    projects: tuple[str, ...]
    scopes: tuple[str, ...]

    def require_scope(self, scope: str) -> None:
        if scope not in self.scopes:
            raise ApiProblem(403, "forbidden_scope", f"This key may not do that: it lacks the scope {scope}")

    def require_project(self, project: str) -> None:
        if project not in self.projects:
            raise ApiProblem(
                403, "forbidden_project", f"This key does not belong to the project {project}", param="project_id"
            )


@dataclass(frozen=True)
class NewKey:
    id: str
    key: str  # the secret itself
    expires_at: str | None


class Keys:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        *,
        projects: Sequence[str],
        scopes: Sequence[str] = SCOPES,
        kind: str = "dev",
        name: str = "",
        lifetime: timedelta | None = None,
    ) -> NewKey:
        """Throws ValueError."""
        if not projects:
            raise ValueError("a key needs a project")
        for project in projects:
            if not _PROJECT.fullmatch(project):
                raise ValueError(f"{project}: expected letters, digits, dots, - and _, such as my-project")
        for scope in scopes:
            if scope not in SCOPES:
                raise ValueError(f"{scope}: expected one of {', '.join(SCOPES)}")
        key = f"tunix_sk_{kind}_{secrets.token_urlsafe(32)}"
        new = NewKey(f"key_{secrets.token_hex(6)}", key, None)
        if lifetime is not None:
            new = NewKey(new.id, key, clock.text_of(clock.seconds_of(clock.now()) + lifetime.total_seconds()))
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    new.id,
                    _digest(key),
                    f"tunix_sk_{kind}",
                    key[-4:],
                    name,
                    json.dumps(sorted(set(projects))),
                    json.dumps(sorted(set(scopes))),
                    clock.now(),
                    new.expires_at,
                ),
            )
        return new

    def revoke(self, key_id: str) -> None:
        with self._database.write() as connection:
            changed = connection.execute(
                "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (clock.now(), key_id)
            ).rowcount
        if not changed:
            raise ValueError(f"{key_id}: there is no such key, or it is revoked already")

    def lines(self) -> list[str]:
        """A line for each key; none of them holds one."""
        rows = self._database.read().execute("SELECT * FROM keys ORDER BY created_at, id")
        return [
            f"{row['id']}  {row['prefix']}_...{row['last4']}  {','.join(json.loads(row['projects']))}  "
            f"{','.join(json.loads(row['scopes']))}  "
            + (f"revoked {row['revoked_at']}" if row["revoked_at"] else f"expires {row['expires_at'] or 'never'}")
            + (f"  {row['name']}" if row["name"] else "")
            for row in rows
        ]

    def authenticate(self, authorization: str | None) -> Caller:
        """Throws ApiProblem 401."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not _KEY.fullmatch(key.strip()):
            raise _invalid()
        row = self._database.read().execute("SELECT * FROM keys WHERE sha256 = ?", (_digest(key.strip()),)).fetchone()
        if row is None or row["revoked_at"] is not None:
            raise _invalid()
        if row["expires_at"] is not None and row["expires_at"] <= clock.now():
            raise ApiProblem(401, "expired_api_key", f"Expired API key: it was valid until {row['expires_at']}")
        return Caller(
            row["id"],
            row["prefix"],
            row["last4"],
            row["expires_at"],
            tuple(json.loads(row["projects"])),
            tuple(json.loads(row["scopes"])),
        )


def choose_project(caller: Caller, in_body: str | None, in_header: str | None) -> str:
    """The project of a request: the body's, else the header's."""
    project = in_body or in_header
    if project is None:
        raise ApiProblem(
            422, "validation_failed", "project_id: required, here or in the header Tunix-Project", param="project_id"
        )
    caller.require_project(project)
    return project


def require_visible(caller: Caller, project: str, what: str) -> None:
    """Things of other projects are not there, rather than forbidden: their names are no one else's business."""
    if project not in caller.projects:
        raise not_found(what)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _invalid() -> ApiProblem:
    return ApiProblem(401, "invalid_api_key", "Invalid API key", headers={"WWW-Authenticate": "Bearer"})
