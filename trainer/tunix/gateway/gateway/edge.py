"""What holds for every request, whatever it asks: its id, the contract's version, a bound on its body, one line of log.

The line has the path without its query and no header, so that nothing a client sends as a secret gets there.
"""

import json
import logging
import secrets
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import CONTRACT
from .errors import ApiProblem, masked
from .settings import JSON_BODY_BYTES, PART_BYTES

_LOG = logging.getLogger("gateway.access")


class Edge:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id
        headers = dict(scope["headers"])
        most = PART_BYTES if scope["method"] == "PUT" else JSON_BODY_BYTES
        status, started = 0, time.monotonic()

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", [])
                message["headers"] += [
                    (b"x-request-id", request_id.encode()),
                    (b"tunix-contract", CONTRACT.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
                if (b"cache-control", b"no-store") not in message["headers"]:
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _too_large(most)
            return message

        try:
            if problem := _refused(scope["path"], headers, most):
                await _answer(problem, request_id, send_on)
            else:
                await self._app(scope, receive_some, send_on)
        finally:
            _LOG.info(
                "%s %s %s %d %.0f ms",
                request_id,
                scope["method"],
                _plain(scope["path"]),
                status,
                1000 * (time.monotonic() - started),
            )


def _refused(path: str, headers: dict[bytes, bytes], most: int) -> ApiProblem | None:
    if any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in path):  # routes would drop a line end, for instance
        return ApiProblem(400, "bad_request", "The address holds a control character")
    contract = headers.get(b"tunix-contract", CONTRACT.encode())
    if contract != CONTRACT.encode() and not contract.startswith(CONTRACT.encode() + b"."):
        return ApiProblem(
            400, "bad_request", f"Tunix-Contract: this service speaks version {CONTRACT}", param="Tunix-Contract"
        )
    length = headers.get(b"content-length", b"0")
    if not length.isdigit():
        return ApiProblem(400, "bad_request", "Content-Length: expected a number", param="Content-Length")
    return _too_large(most) if len(length) > 18 or int(length) > most else None


def _too_large(most: int) -> ApiProblem:
    return ApiProblem(413, "too_large", f"The body is larger than {most} bytes", headers={"Connection": "close"})


async def _answer(problem: ApiProblem, request_id: str, send: Send) -> None:
    body = json.dumps(problem.body(request_id)).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in (problem.headers or {}).items()]
    await send({"type": "http.response.start", "status": problem.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _plain(path: str) -> str:
    return masked("".join(letter if letter.isprintable() and letter != " " else "?" for letter in path[:200]))
