"""Who one is, what there is, how much of it is left, what a job would cost."""

from typing import Annotated

from fastapi import APIRouter, Query

from ..errors import not_found
from ..estimates import estimate
from ..limits import require_trainable
from ..schemas import (
    AcceleratorAnswer,
    AuthAnswer,
    EstimateAnswer,
    EstimateRequest,
    KeyAnswer,
    ProjectAnswer,
    QuotaAnswer,
    TokenTotals,
)
from .shared import CallerIn, ServiceIn, errors

router = APIRouter(tags=["account"], responses=errors())


@router.get("/auth/test")
def auth_test(caller: CallerIn) -> AuthAnswer:
    """Is the key accepted, and what is it for?"""
    return AuthAnswer(
        ok=True,
        key=KeyAnswer(prefix=caller.prefix, last4=caller.last4, expires_at=caller.expires_at),
        projects=[ProjectAnswer(id=project, role="member") for project in caller.projects],
        scopes=list(caller.scopes),
    )


@router.get("/accelerators")
def list_accelerators(service: ServiceIn, caller: CallerIn) -> list[AcceleratorAnswer]:
    """What jobs can run on here, with prices."""
    return [
        AcceleratorAnswer(
            name=one.name,
            kind=one.kind,
            cores=one.cores,
            hbm_bytes_per_core=one.hbm_bytes_per_core,
            regions=list(one.regions),
            usd_per_hour=one.usd_per_hour,
            spot_usd_per_hour=one.spot_usd_per_hour,
            max_seconds=one.max_seconds,
            prices_as_of=service.accelerators.as_of,
        )
        for one in service.accelerators.served
    ]


@router.get("/projects/{project_id}/quota")
def get_quota(
    project_id: str,
    service: ServiceIn,
    caller: CallerIn,
    accelerator: Annotated[str | None, Query(max_length=64)] = None,
    region: Annotated[str | None, Query(max_length=64)] = None,
) -> QuotaAnswer:
    """How many more jobs of the project may be unfinished at a time on one accelerator.

    There is no clock in it: a place is free when a job has ended, so `resets_at` is null.
    """
    caller.require_project(project_id)
    chosen = service.accelerators.require(accelerator)
    if region is not None and chosen.regions and region not in chosen.regions:
        raise not_found(f"{chosen.name} in {region}")
    quota = service.jobs.quota(project_id, chosen.name)
    return QuotaAnswer(resets_at=None, console_url=service.settings.console_url, **quota)


@router.post("/cost-estimates")
def estimate_cost(body: EstimateRequest, service: ServiceIn, caller: CallerIn) -> EstimateAnswer:
    """Steps, tokens, memory, hours and dollars of a job that is not submitted yet."""
    caller.require_scope("jobs:read")
    if body.project_id is not None:
        caller.require_project(body.project_id)
    totals = body.totals
    if body.dataset_id is not None:
        dataset = service.datasets.answer(service.datasets.require(caller, body.dataset_id))
        if dataset["tokens"]:
            totals = TokenTotals(
                rows=dataset["line_count"], tokens=dataset["tokens"], longest_row=dataset["longest_row"]
            )
    model = service.models.require(body.model)
    require_trainable(body.training, model, totals)
    return estimate(
        body.training,
        model,
        service.accelerators.choose(body.resources),
        totals,
        spot=body.resources.spot,
        model_bytes=4 if body.output.model_dtype == "fp32" else 2,
        prices_as_of=service.accelerators.as_of,
    )
