"""What happens to a job: polled, streamed, or as one metrics line a step."""

import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from ..errors import ApiProblem
from ..jobs import is_terminal
from ..schemas import EventAnswer, EventPage
from ..service import Service
from .shared import CallerIn, ServiceIn, errors

router = APIRouter(prefix="/jobs/{job_id}", tags=["events"], responses=errors())
_PAGE = 1000
_MOST = 10**15  # no job has so many events or steps, and the database counts no further than 2**63


@router.get(
    "/events",
    response_model=EventPage,
    responses={
        200: {
            "content": {"text/event-stream": {}},
            "description": "JSON, or the same as server-sent events: id is the seq, event the type; "
            "heartbeat events have no id",
        }
    },
)
async def list_events(
    job_id: str,
    service: ServiceIn,
    caller: CallerIn,
    after: Annotated[int, Query(ge=0, le=_MOST)] = 0,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = _PAGE,
    wait: Annotated[float, Query(ge=0, le=30, description="Seconds to wait for news.")] = 0,
    accept: Annotated[str, Header()] = "application/json",
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
) -> Response:
    """The events after `after`, from 1 without gaps."""
    caller.require_scope("jobs:read")
    await run_in_threadpool(service.jobs.require, caller, job_id)
    if last_event_id is not None:
        if not last_event_id.isascii() or not last_event_id.isdigit():
            raise ApiProblem(400, "bad_request", "Last-Event-ID: expected the seq of an event", param="Last-Event-ID")
        after = min(int(last_event_id), _MOST)
    if "text/event-stream" in accept:
        return StreamingResponse(_stream(service, job_id, after), media_type="text/event-stream")
    with service.bell.listen(job_id) as listening:
        events, terminal = await run_in_threadpool(_news, service, job_id, after, limit)
        if not events and not terminal and wait > 0:
            await listening.wait(wait)
            events, terminal = await run_in_threadpool(_news, service, job_id, after, limit)
    last = events[-1].seq if events else after
    page = EventPage(data=events, last_seq=last, terminal=terminal and len(events) < limit)
    return Response(page.model_dump_json(), media_type="application/json")


@router.get("/metrics", response_class=Response, responses={200: {"content": {"application/x-ndjson": {}}}})
def list_metrics(
    job_id: str,
    service: ServiceIn,
    caller: CallerIn,
    after_step: Annotated[int, Query(ge=-1, le=_MOST)] = -1,
) -> Response:
    """One JSON object a step, in the order of steps; a step that was made again after a restart is there once."""
    caller.require_scope("jobs:read")
    service.jobs.require(caller, job_id)
    lines = service.jobs.metrics(job_id, after_step)
    return Response("".join(line + "\n" for line in lines), media_type="application/x-ndjson")


def _news(service: Service, job_id: str, after: int, limit: int) -> tuple[list[EventAnswer], bool]:
    # The state first: what it says is over has all its events.
    terminal = is_terminal(service.jobs.row(job_id)["state"])
    return [EventAnswer(**event) for event in service.jobs.events(job_id, after, limit)], terminal


async def _stream(service: Service, job_id: str, after: int) -> AsyncIterator[str]:
    with service.bell.listen(job_id) as listening:
        while not service.bell.closed:
            events, terminal = await run_in_threadpool(_news, service, job_id, after, _PAGE)
            for event in events:
                after = event.seq
                yield f"id: {event.seq}\nevent: {event.type}\ndata: {json.dumps(event.model_dump())}\n\n"
            if len(events) == _PAGE:
                continue
            if terminal:
                return
            if not await listening.wait(service.settings.heartbeat_seconds):
                yield "event: heartbeat\ndata: {}\n\n"
