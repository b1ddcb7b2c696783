"""Files that a job leaves: found after it has ended, digested by the gateway itself, opened without following links.

Names below a job's folder come from the runner, and names in addresses from clients. Both are checked by the same
rules, and only what the database lists is ever opened.
"""

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from .database import Database
from .errors import ApiProblem
from .files import sync_folder

_DEEPEST = 16


def path_problem(path: str) -> str | None:
    """Why the path is not one of ours; None: it is."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if not path or len(encoded) > 1024:
        return "it is empty or longer than 1024 bytes"
    if path.startswith("/") or "\\" in path or path[1:2] == ":":
        return "it is absolute, or holds a backslash or a drive"
    if any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in path):
        return "it holds a control character"
    parts = path.split("/")
    if any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts):
        return 'it holds an empty name, ".", ".." or one longer than 255 bytes'
    return "it is too deep" if len(parts) > _DEEPEST else None


@contextmanager
def open_below(root: Path, path: str) -> Iterator[BufferedReader]:
    """The regular file `path` below `root`; a link at any component is refused. Throws OSError, ValueError."""
    if problem := path_problem(path):
        raise ValueError(problem)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *folders, name = path.split("/")
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        yield file


def describe(root: Path, file: str, path: str, kind: str, step: int | None = None) -> dict[str, Any]:
    """The artifact's row. Throws OSError, ValueError."""
    with open_below(root, file) as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        size = os.fstat(opened.fileno()).st_size
    return {"path": path, "kind": kind, "step": step, "size": size, "sha256": digest, "file": file}


def exported_artifacts(workdir: Path, files: Any) -> list[dict[str, Any]]:
    """The runner's list of files, each found as it says. Throws ValueError with what is wrong."""
    if not isinstance(files, list) or not files:
        raise ValueError("the runner named no files of a model")
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    for entry in files:
        path = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(path, str) or not path.startswith("final_model/"):
            raise ValueError("the runner named a file outside final_model/")
        if problem := path_problem(path):
            raise ValueError(f"the runner named a file that is refused: {problem}")
        if path.casefold() in seen:
            raise ValueError(f"{path}: named twice, or twice on some disks")
        seen.add(path.casefold())
        try:
            artifact = describe(workdir, f"output/{path}", path, "final_model")
        except (OSError, ValueError) as problem_found:
            raise ValueError(f"{path}: cannot be read: {problem_found}") from problem_found
        if (artifact["size"], artifact["sha256"]) != (entry.get("size"), entry.get("sha256")):
            raise ValueError(f"{path}: is not what the runner wrote: size or SHA-256 differ")
        found.append(artifact)
    return found


def checkpoint_artifacts(workdir: Path) -> list[dict[str, Any]]:
    """Every file of the whole checkpoints that are there. Links and odd names are left out."""
    found = []
    root = workdir / "checkpoints"
    for folder, folders, names in os.walk(root, followlinks=False):
        folders.sort()
        for name in sorted(names):
            below = str((Path(folder) / name).relative_to(root))
            step = below.split("/")[0]
            if not re.fullmatch(r"[0-9]{1,12}", step) or "/" not in below:
                continue
            with suppress(OSError, ValueError):
                path = f"checkpoints/{below}"
                found.append(describe(workdir, path, path, "checkpoint", int(step)))
    return found


def copy_out(workdir: Path, artifacts: list[dict[str, Any]], target: Path) -> None:
    """The final model below `target`, which appears by rename; the same one that is there already counts.

    Throws OSError, ValueError.
    """
    if (target / "final_model").exists():
        wanted = {artifact["path"]: artifact["sha256"] for artifact in artifacts if artifact["kind"] == "final_model"}
        if {path: describe(target, path, path, "final_model")["sha256"] for path in wanted} != wanted:
            raise ValueError(f"{target.name}: holds another final_model already")
        return
    temporary = target / f".final_model.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    for artifact in artifacts:
        if artifact["kind"] != "final_model":
            continue
        copy = temporary / artifact["path"].removeprefix("final_model/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        with open_below(workdir, artifact["file"]) as source, copy.open("xb") as sink:
            shutil.copyfileobj(source, sink, 1024 * 1024)
            sink.flush()
            os.fsync(sink.fileno())
    temporary.rename(target / "final_model")
    sync_folder(target)


class Artifacts:
    def __init__(self, database: Database, jobs_folder: Path) -> None:
        self._database = database
        self._folder = jobs_folder

    def rows(self, job_id: str) -> list[Any]:
        return (
            self._database.read()
            .execute("SELECT * FROM artifacts WHERE job_id = ? AND deleting = 0 ORDER BY path", (job_id,))
            .fetchall()
        )

    def require(self, job_id: str, path: str) -> Any:
        row = (
            self._database.read()
            .execute("SELECT * FROM artifacts WHERE job_id = ? AND path = ? AND deleting = 0", (job_id, path))
            .fetchone()
        )
        if row is None:
            raise ApiProblem(404, "not_found", "The job has no artifact of that name")
        return row

    def open(self, row: Any) -> Any:
        return open_below(self._folder / row["job_id"], row["file"])

    def delete(self, job_id: str, kind: str, before: str | None) -> tuple[list[str], int]:
        """Their paths and bytes. The rows say so first: the next gateway finishes what this one leaves half done."""
        with self._database.write() as connection:
            rows = connection.execute(
                "UPDATE artifacts SET deleting = 1 WHERE job_id = ? AND kind = ? AND deleting = 0"
                " AND (? IS NULL OR created_at < ?) RETURNING path, size",
                (job_id, kind, before, before),
            ).fetchall()
        self.finish_deletions()
        return sorted(row["path"] for row in rows), sum(row["size"] for row in rows)

    def finish_deletions(self) -> None:
        rows = self._database.read().execute("SELECT job_id, path, file FROM artifacts WHERE deleting = 1").fetchall()
        for row in rows:
            (self._folder / row["job_id"] / row["file"]).unlink(missing_ok=True)
            with self._database.write() as connection:
                connection.execute(
                    "DELETE FROM artifacts WHERE job_id = ? AND path = ? AND deleting = 1", (row["job_id"], row["path"])
                )
