"""Jobs: submitted, looked at, cancelled."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from ..accelerators import Accelerator
from ..errors import ApiProblem
from ..estimates import estimate
from ..idempotency import require_key
from ..keys import Caller, choose_project
from ..limits import require_trainable
from ..models import Model
from ..outputs import output_folder
from ..schemas import CancelRequest, JobAnswer, JobPage, JobRequest, State, TokenTotals
from ..service import Service
from .shared import CallerIn, IdempotencyKey, ProjectHeader, ServiceIn, errors

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=errors())


@router.post(
    "",
    status_code=201,
    responses=errors(402, 409) | {200: {"model": JobAnswer, "description": "This key made it before"}},
)
def create_job(
    body: JobRequest,
    response: Response,
    service: ServiceIn,
    caller: CallerIn,
    key: IdempotencyKey = None,
    project_header: ProjectHeader = None,
) -> JobAnswer:
    """Submits a job. The same key and body give the same job, however often."""
    caller.require_scope("jobs:write")
    project = choose_project(caller, body.project_id, project_header)
    key = require_key(key)
    row = service.jobs.find_replay(project, body, key)
    if row is None:
        accelerator, runner_spec = _checked(service, caller, project, body)
        row, is_new = service.jobs.submit(project, body, key, accelerator=accelerator, runner_spec=runner_spec)
        if is_new:
            return JobAnswer(**service.jobs.answer(row))
    response.status_code = 200
    response.headers["Idempotent-Replay"] = "true"
    return JobAnswer(**service.jobs.answer(row))


@router.get("")
def list_jobs(
    service: ServiceIn,
    caller: CallerIn,
    project_id: Annotated[str | None, Query(max_length=63)] = None,
    state: Annotated[State | None, Query()] = None,
    experiment: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=64)] = None,
    project_header: ProjectHeader = None,
) -> JobPage:
    """Newest first; `after` takes the last id of the page before."""
    caller.require_scope("jobs:read")
    chosen = project_id or project_header
    if chosen is not None:
        caller.require_project(chosen)
    number = service.jobs.require(caller, after)["number"] if after is not None else None
    rows = service.jobs.page(
        (chosen,) if chosen else caller.projects, state=state, experiment=experiment, after=number, limit=limit
    )
    page = [JobAnswer(**service.jobs.answer(row)) for row in rows[:limit]]
    more = len(rows) > limit
    return JobPage(data=page, has_more=more, next=page[-1].id if more else None)


@router.get("/{job_id}", response_model=JobAnswer, responses={304: {"description": "It is as `If-None-Match` says"}})
def get_job(
    job_id: str,
    service: ServiceIn,
    caller: CallerIn,
    if_none_match: Annotated[str | None, Header(alias="If-None-Match", max_length=1000)] = None,
) -> Response:
    caller.require_scope("jobs:read")
    answer = service.jobs.answer(service.jobs.require(caller, job_id))
    text = JobAnswer(**answer).model_dump_json()
    etag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
    known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    headers = {"ETag": etag}
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(text, media_type="application/json", headers=headers)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    responses=errors(409) | {200: {"model": JobAnswer, "description": "It was asked for before"}},
)
def cancel_job(
    job_id: str,
    response: Response,
    service: ServiceIn,
    caller: CallerIn,
    body: CancelRequest | None = None,
) -> JobAnswer:
    """Asks for the job's end. It may still end as completed, when it was about to."""
    caller.require_scope("jobs:write")
    service.jobs.require(caller, job_id)
    row, is_first = service.jobs.cancel(job_id, (body or CancelRequest()).save_checkpoint)
    if not is_first:
        response.status_code = 200
    return JobAnswer(**service.jobs.answer(row))


def _checked(service: Service, caller: Caller, project: str, body: JobRequest) -> tuple[Accelerator, dict[str, Any]]:
    """What the job will be run on and told. Throws ApiProblem where it could not work."""
    accelerator = service.accelerators.choose(body.resources)
    model = service.models.require(body.model)
    if body.output.uri is not None:
        output_folder(body.output.uri, service.settings.outputs)
    dataset = service.datasets.require(caller, body.dataset_id)
    if dataset["project_id"] != project:
        raise ApiProblem(422, "validation_failed", "dataset_id: belongs to another project", param="dataset_id")
    if dataset["state"] != "ready":
        raise ApiProblem(
            409, "dataset_not_ready", f"The data set {body.dataset_id} is {dataset['state']}", param="dataset_id"
        )
    stats = json.loads(dataset["stats"])
    if stats["largest_id"] >= model.vocab_size:
        raise ApiProblem(
            422,
            "validation_failed",
            f"dataset_id: it has the token id {stats['largest_id']}, and the "
            f"vocabulary of {body.model.base_model} has {model.vocab_size}",
            param="dataset_id",
        )
    totals = TokenTotals(rows=dataset["line_count"], tokens=stats["tokens"], longest_row=stats["longest_row"])
    require_trainable(body.training, model, totals)
    if body.max_cost_usd is not None:
        made = estimate(
            body.training,
            model,
            accelerator,
            totals,
            spot=body.resources.spot,
            model_bytes=2,
            prices_as_of=service.accelerators.as_of,
        )
        if made.usd.high is not None and made.usd.high > body.max_cost_usd:
            raise ApiProblem(
                402,
                "cost_limit_exceeded",
                f"The job may cost ${made.usd.low:.2f} to ${made.usd.high:.2f} "
                f"(prices of {made.prices_as_of}), more than max_cost_usd",
                param="max_cost_usd",
            )
    content = service.datasets.content(body.dataset_id).resolve()
    return accelerator, _runner_spec(body, model, accelerator, content, dict(dataset), stats)


def _runner_spec(
    body: JobRequest,
    model: Model,
    accelerator: Accelerator,
    content: Path,
    dataset: dict[str, Any],
    stats: dict[str, Any],
) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "model": {
            "path": str(model.folder.resolve()),
            "base_model": body.model.base_model,
            "revision": body.model.revision,
        },
        "data": {
            "path": str(content),
            "format": "tokens",
            "rows": dataset["line_count"],
            "bytes": dataset["bytes"],
            "sha256": dataset["sha256"],
            "tokens": stats["tokens"],
            "target_tokens": stats["target_tokens"],
            "longest_row": stats["longest_row"],
        },
        "training": body.training.model_dump(mode="json")
        | {"max_seq_length": body.training.max_seq_length or stats["longest_row"]},
        "accelerator": {
            "name": accelerator.name,
            "kind": accelerator.kind,
            "cores": accelerator.cores,
            "mesh": accelerator.mesh,
        },
        "output": body.output.model_dump(mode="json", exclude={"uri"}),
    }
