"""What a job left: listed, downloaded in ranges, deleted."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from .. import clock
from ..errors import ApiProblem
from ..jobs import is_terminal
from ..schemas import ArtifactAnswer, ArtifactKind, ArtifactPage, DeletedAnswer
from ..service import Service
from .shared import CallerIn, ServiceIn, errors

router = APIRouter(prefix="/jobs/{job_id}/artifacts", tags=["artifacts"], responses=errors())
_CHUNK = 256 * 1024
_RANGE = re.compile(r"bytes=([0-9]{0,40})-([0-9]{0,40})")
_BINARY: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The whole file; ETag is its SHA-256 in quotes"},
    206: {"content": {"application/octet-stream": {}}, "description": "The range"},
}


@router.get("")
def list_artifacts(job_id: str, service: ServiceIn, caller: CallerIn) -> ArtifactPage:
    """Every file, once the job has ended (`complete`)."""
    caller.require_scope("jobs:read")
    job = service.jobs.require(caller, job_id)
    rows = service.artifacts.rows(job_id)
    data = [
        ArtifactAnswer(
            path=row["path"],
            kind=row["kind"],
            step=row["step"],
            size=row["size"],
            sha256=row["sha256"],
            created_at=row["created_at"],
            expires_at=None,
        )
        for row in rows
    ]
    return ArtifactPage(data=data, complete=is_terminal(job["state"]))


@router.get("/{path:path}", response_class=Response, responses=errors(416) | _BINARY)
def get_artifact(
    job_id: str,
    path: str,
    service: ServiceIn,
    caller: CallerIn,
    range_header: Annotated[str | None, Header(alias="Range", max_length=200)] = None,
    if_range: Annotated[str | None, Header(alias="If-Range", max_length=200)] = None,
) -> Response:
    """The bytes, or one range of them while the file is the one of `If-Range`."""
    caller.require_scope("jobs:read")
    service.jobs.require(caller, job_id)
    row = service.artifacts.require(job_id, path)
    headers = _headers(row)
    size: int = row["size"]
    first, last, status = 0, size - 1, 200
    if range_header is not None and if_range in (None, headers["ETag"]):
        found = _parse_range(range_header, size)
        if found is not None:
            (first, last), status = found, 206
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last - first + 1)
    return StreamingResponse(_bytes(service, row, first, last - first + 1), status, headers)


@router.head("/{path:path}", include_in_schema=False)
def head_artifact(job_id: str, path: str, service: ServiceIn, caller: CallerIn) -> Response:
    caller.require_scope("jobs:read")
    service.jobs.require(caller, job_id)
    row = service.artifacts.require(job_id, path)
    return Response(headers=_headers(row) | {"Content-Length": str(row["size"])})


@router.delete("", responses=errors(409))
def delete_artifacts(
    job_id: str,
    service: ServiceIn,
    caller: CallerIn,
    kind: Annotated[ArtifactKind, Query()],
    older_than_days: Annotated[float | None, Query(ge=0, le=100_000)] = None,
) -> DeletedAnswer:
    """Files of one kind of a job that has ended: all of them, or those of some age."""
    caller.require_scope("jobs:write")
    job = service.jobs.require(caller, job_id)
    if not is_terminal(job["state"]):
        raise ApiProblem(409, "job_not_terminal", f"The job {job_id} has not ended: its files are in use")
    before = None if older_than_days is None else clock.text_of(time.time() - 86_400 * older_than_days)
    deleted, size = service.artifacts.delete(job_id, kind, before)
    return DeletedAnswer(deleted=deleted, bytes=size)


def _headers(row: Any) -> dict[str, str]:
    return {
        "ETag": f'"{row["sha256"]}"',
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
        "Content-Disposition": "attachment",
    }


def _parse_range(text: str, size: int) -> tuple[int, int] | None:
    """None: not one range, so that the whole file is the answer. Throws ApiProblem 416."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or match.groups() == ("", ""):
        return None
    if match[1]:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return None
    else:
        first, last = max(0, size - int(match[2])), size - 1
    if first >= size or last < first:
        raise ApiProblem(
            416,
            "range_not_satisfiable",
            f"Range: the file has {size} bytes",
            param="Range",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return first, last


def _bytes(service: Service, row: Any, first: int, count: int) -> Iterator[bytes]:
    """Opened before the answer begins, so that a file that is gone is an error and not half an answer."""
    stack = ExitStack()
    try:
        file = stack.enter_context(service.artifacts.open(row))
        file.seek(first)
    except (OSError, ValueError) as problem:
        raise ApiProblem(500, "internal", "The artifact cannot be read; ask the operator of the service") from problem

    def chunks() -> Iterator[bytes]:
        left = count
        with stack:
            while left > 0:
                chunk = file.read(min(_CHUNK, left))
                if not chunk:
                    raise OSError(f"{row['path']}: shorter than it was")
                left -= len(chunk)
                yield chunk

    return chunks()
