"""What every endpoint takes: the service, and who is calling."""

from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ..keys import Caller
from ..schemas import ErrorAnswer
from ..service import Service

_bearer = HTTPBearer(auto_error=False, description="tunix_sk_...", scheme_name="key")

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in (
        (400, "bad_request"),
        (401, "invalid_api_key, expired_api_key"),
        (403, "forbidden_project, forbidden_scope"),
        (404, "not_found"),
        (413, "too_large"),
        (422, "validation_failed: param names the member"),
        (429, "rate_limited (retry), quota_exceeded (do not)"),
    )
}


def get_service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceIn = Annotated[Service, Depends(get_service)]


def authenticate(
    service: ServiceIn, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    caller = service.keys.authenticate(f"Bearer {credentials.credentials}" if credentials else None)
    service.rate_limit.take(caller.key_id)
    return caller


CallerIn = Annotated[Caller, Depends(authenticate)]
ProjectHeader = Annotated[str | None, Header(alias="Tunix-Project", max_length=63)]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", description="Required, 1 to 128 characters.")]


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Those of the contract's table that every call can end with, and these."""
    texts = {
        402: "cost_limit_exceeded",
        409: "idempotency_conflict, job_terminal, dataset_not_ready, dataset_in_use",
        416: "range_not_satisfiable",
    }
    return ERRORS | {status: {"model": ErrorAnswer, "description": texts[status]} for status in statuses}
