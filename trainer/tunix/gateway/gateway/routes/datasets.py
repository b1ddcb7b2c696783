"""Rows: announced, uploaded in parts, checked."""

import re
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool

from ..errors import ApiProblem
from ..idempotency import require_key
from ..keys import choose_project
from ..schemas import DatasetAnswer, DatasetRequest
from .shared import CallerIn, IdempotencyKey, ProjectHeader, ServiceIn, errors

router = APIRouter(prefix="/datasets", tags=["datasets"], responses=errors())
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


@router.post("", status_code=201, responses=errors(409) | {200: {"model": DatasetAnswer, "description": "It was here"}})
def create_dataset(
    body: DatasetRequest,
    response: Response,
    service: ServiceIn,
    caller: CallerIn,
    key: IdempotencyKey = None,
    project_header: ProjectHeader = None,
) -> DatasetAnswer:
    """Announces rows. With a digest that the project has already, the answer is that data set, ready."""
    caller.require_scope("datasets:write")
    project = choose_project(caller, body.project_id, project_header)
    answer, is_new, is_replay = service.datasets.create(project, body, require_key(key))
    if not is_new:
        response.status_code = 200
    if is_replay:
        response.headers["Idempotent-Replay"] = "true"
    return DatasetAnswer(**answer)


@router.get("/{dataset_id}")
def get_dataset(dataset_id: str, service: ServiceIn, caller: CallerIn) -> DatasetAnswer:
    caller.require_scope("datasets:read")
    return DatasetAnswer(**service.datasets.answer(service.datasets.require(caller, dataset_id)))


@router.delete("/{dataset_id}", status_code=204, responses=errors(409))
def delete_dataset(dataset_id: str, service: ServiceIn, caller: CallerIn) -> Response:
    caller.require_scope("datasets:write")
    service.datasets.delete(caller, dataset_id)
    return Response(status_code=204)


@router.head("/{dataset_id}/content")
def get_upload_offset(dataset_id: str, service: ServiceIn, caller: CallerIn) -> Response:
    """`Upload-Offset`: where the next part begins."""
    caller.require_scope("datasets:read")
    row = service.datasets.require(caller, dataset_id)
    return Response(headers={"Upload-Offset": str(row["received"])})


@router.put(
    "/{dataset_id}/content",
    responses=errors(416),
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
)
async def put_content(
    dataset_id: str,
    request: Request,
    service: ServiceIn,
    caller: CallerIn,
    content_range: Annotated[str | None, Header(alias="Content-Range", description="bytes FIRST-LAST/TOTAL")] = None,
) -> DatasetAnswer:
    """The next part. After the last one size, digest and rows are checked before the answer: ready or invalid."""
    caller.require_scope("datasets:write")
    await run_in_threadpool(service.datasets.require, caller, dataset_id)
    match = _CONTENT_RANGE.fullmatch(content_range or "")
    if match is None:
        raise ApiProblem(400, "bad_request", "Content-Range: expected bytes FIRST-LAST/TOTAL", param="Content-Range")
    first, last, total = (int(text) for text in match.groups())
    part = await request.body()
    if len(part) != last - first + 1:
        raise ApiProblem(
            400,
            "bad_request",
            f"Content-Range: names {last - first + 1} bytes, the body has {len(part)}",
            param="Content-Range",
        )
    answer = await run_in_threadpool(service.datasets.append, caller, dataset_id, first, total, part)
    return DatasetAnswer(**answer)
