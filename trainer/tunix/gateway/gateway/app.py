"""The service as an ASGI application."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from . import CONTRACT, VERSION
from .edge import Edge
from .errors import ApiProblem
from .routes import account, artifacts, datasets, events, jobs
from .service import Service

_LOG = logging.getLogger("gateway")
_DESCRIPTION = "Jobs of a Tunix service: rows are uploaded, a job is submitted, watched and its model downloaded."


def create_app(service: Service | None) -> FastAPI:
    """`service` None: only for its OpenAPI description."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        assert service is not None
        await run_in_threadpool(lambda: None)  # the pool is there before anything waits for it
        service.start()
        yield
        service.bell.close()
        await run_in_threadpool(service.stop)

    app = FastAPI(
        title="Tunix job service",
        version=f"{CONTRACT}.{VERSION}",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    v1 = APIRouter(prefix="/v1")
    for part in (account, datasets, jobs, events, artifacts):
        v1.include_router(part.router)
    app.include_router(v1)

    @app.get("/healthz", include_in_schema=False, response_class=PlainTextResponse)
    def health() -> str:
        return "ok\n"

    app.add_exception_handler(HTTPException, _on_http_problem)
    app.add_exception_handler(RequestValidationError, _on_validation_problem)
    app.add_exception_handler(Exception, _on_fault)
    app.add_middleware(Edge)
    return app


def openapi_text() -> str:
    """The description as it is committed."""
    return json.dumps(create_app(None).openapi(), indent=1, sort_keys=True) + "\n"


def _answer(request: Request, problem: ApiProblem) -> Response:
    body = problem.body(getattr(request.state, "request_id", ""))
    return JSONResponse(body, problem.status_code, dict(problem.headers or {}))


async def _on_http_problem(request: Request, exception: Exception) -> Response:
    if isinstance(exception, ApiProblem):
        return _answer(request, exception)
    assert isinstance(exception, HTTPException)
    if exception.status_code in (404, 405):
        return _answer(
            request,
            ApiProblem(
                exception.status_code,
                "not_found",
                "There is nothing at this address and method",
                headers=exception.headers,
            ),
        )
    return _answer(request, ApiProblem(exception.status_code, "bad_request", "The request cannot be read"))


async def _on_validation_problem(request: Request, exception: Exception) -> Response:
    assert isinstance(exception, RequestValidationError)
    problems = exception.errors()
    if any(problem["type"] == "json_invalid" for problem in problems):
        return _answer(request, ApiProblem(400, "bad_request", "The body is not JSON"))
    texts = [_problem_text(problem) for problem in problems]
    return _answer(
        request,
        ApiProblem(
            422,
            "validation_failed",
            "; ".join(f"{place}: {text}" if place else text for place, text in texts[:5]),
            param=texts[0][0] or None,
        ),
    )


def _problem_text(problem: Any) -> tuple[str, str]:
    """Place and text, without the value: it may be anything."""
    place = ".".join(str(part) for part in problem["loc"][1:])[:200]
    known = {"extra_forbidden": "unknown member", "missing": "required"}
    return place, known.get(problem["type"], str(problem["msg"])[:200])


async def _on_fault(request: Request, exception: Exception) -> Response:
    _LOG.error("%s: fault", getattr(request.state, "request_id", ""), exc_info=exception)
    return _answer(request, ApiProblem(500, "internal", "The service has a fault; its log says which"))
