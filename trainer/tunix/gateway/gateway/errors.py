"""The one exception of the service, which is its error answer too."""

import re
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

_TYPES = {
    401: "authentication_error",
    402: "cost_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


def masked(text: str) -> str:
    """Without what looks like a key: somebody may have sent one in the wrong place."""
    return re.sub(r"tunix_sk_[A-Za-z0-9_-]*", "tunix_sk_***", text)


class ApiProblem(HTTPException):
    """What a call ends with: status, code of the contract's table, a message for people, and the place it is about."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        all_headers = dict(headers or {})
        if retry_after is not None:
            all_headers["Retry-After"] = str(retry_after)
        super().__init__(status, message, all_headers)
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after

    def body(self, request_id: str) -> dict[str, Any]:
        kind = _TYPES.get(self.status_code, "invalid_request_error" if self.status_code < 500 else "server_error")
        return {
            "error": {
                "code": self.code,
                "message": masked(self.message),
                "type": kind,
                "param": masked(self.param) if self.param else None,
                "request_id": request_id,
                "retry_after": self.retry_after,
            }
        }


def not_found(what: str) -> ApiProblem:
    return ApiProblem(404, "not_found", f"{what}: there is none of that name in your projects")
