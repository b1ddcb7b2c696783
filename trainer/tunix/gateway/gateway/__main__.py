"""python -m gateway COMMAND: serve, keys, quota, openapi."""

import argparse
import fcntl
import ipaddress
import logging
import os
import resource
import shlex
import signal
import sys
from pathlib import Path

import uvicorn

from . import VERSION, clock
from .app import create_app, openapi_text
from .database import Database
from .keys import KINDS, SCOPES, Keys
from .outputs import parse_output
from .service import make_service
from .settings import Settings

_HERE = Path(__file__).resolve().parents[1]


def main(words: list[str] | None = None) -> int:
    os.umask(0o077)
    arguments = _parser().parse_args(words)
    try:
        code: int = arguments.run(arguments)
        return code
    except (ValueError, OSError, RuntimeError) as problem:
        print(f"gateway: {problem}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway", description="The job service: keeps jobs, runs them, serves models."
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument(
        "--data",
        type=Path,
        default=Path("gateway-data"),
        metavar="DIR",
        help="database, data sets and jobs (default: ./gateway-data)",
    )

    serve = commands.add_parser("serve", parents=[data], help="serve until SIGTERM")
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; other than this machine's own needs TLS"
    )
    serve.add_argument("--port", type=int, default=8080)
    serve.add_argument("--tls-cert", type=Path, metavar="FILE", help="PEM, with its chain")
    serve.add_argument("--tls-key", type=Path, metavar="FILE")
    serve.add_argument("--public-url", metavar="URL", help="where clients reach it, with /v1 (default: the address)")
    serve.add_argument("--console-url", metavar="URL", help="where a user asks for more quota")
    serve.add_argument(
        "--accelerator", action="append", metavar="NAME", help="of the price table, repeatable (default: cpu)"
    )
    serve.add_argument("--prices", type=Path, default=_HERE / "accelerators.json", metavar="FILE")
    serve.add_argument(
        "--models",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="folder with models by id, DIR/google/gemma-3-270m; repeatable",
    )
    serve.add_argument(
        "--hub-cache", type=Path, metavar="DIR", help="Hugging Face cache, such as ~/.cache/huggingface/hub"
    )
    serve.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="gs://BUCKET[/PREFIX]=DIR",
        help="folder that stands for a bucket, repeatable",
    )
    serve.add_argument(
        "--runner", default=f"{sys.executable} -m runner", metavar="COMMAND", help="the program that trains (RUNNER.md)"
    )
    serve.add_argument("--grace-seconds", type=float, default=300, help="from SIGTERM to SIGKILL of a runner")
    serve.add_argument("--max-restarts", type=int, default=3, help="of a runner that crashes, without a new checkpoint")
    serve.add_argument("--max-jobs", type=int, default=10, help="unfinished jobs a project may have on one accelerator")
    serve.add_argument("--requests-per-second", type=float, default=50, help="of one key")
    serve.add_argument("--heartbeat-seconds", type=float, default=15, help="between heartbeats of an event stream")
    serve.add_argument("--max-dataset-bytes", type=int, default=4 * 1024**3)
    serve.set_defaults(run=_serve)

    keys = commands.add_parser("keys", help="make, list and revoke API keys").add_subparsers(
        required=True, metavar="VERB"
    )
    create = keys.add_parser("create", parents=[data], help="print a new key, this once")
    create.add_argument("--project", action="append", required=True, help="repeatable")
    create.add_argument("--scope", action="append", choices=SCOPES, help="repeatable (default: all)")
    create.add_argument("--kind", choices=KINDS, default="dev")
    create.add_argument("--name", default="", help="for the list of keys")
    create.add_argument("--expires-in", metavar="TIME", help="such as 90d or 12h (default: never)")
    create.set_defaults(run=_create_key)
    listing = keys.add_parser("list", parents=[data])
    listing.set_defaults(run=_list_keys)
    revoke = keys.add_parser("revoke", parents=[data])
    revoke.add_argument("id", help="key_..., from the list")
    revoke.set_defaults(run=_revoke_key)

    quota = commands.add_parser("quota", parents=[data], help="how many unfinished jobs a project may have")
    quota.add_argument("--project", required=True)
    quota.add_argument("--accelerator", required=True)
    quota.add_argument("--max-jobs", type=int, required=True)
    quota.set_defaults(run=_set_quota)

    openapi = commands.add_parser("openapi", help="print the description of the service")
    openapi.set_defaults(run=lambda _: print(openapi_text(), end="") or 0)
    return parser


def _open_database(arguments: argparse.Namespace) -> Database:
    arguments.data.mkdir(parents=True, exist_ok=True)
    return Database(arguments.data / "gateway.db")


def _create_key(arguments: argparse.Namespace) -> int:
    lifetime = clock.parse_duration(arguments.expires_in) if arguments.expires_in else None
    new = Keys(_open_database(arguments)).create(
        projects=arguments.project,
        scopes=arguments.scope or SCOPES,
        kind=arguments.kind,
        name=arguments.name,
        lifetime=lifetime,
    )
    print(f"{new.id}, expires {new.expires_at or 'never'}; the key is shown this once:", file=sys.stderr)
    print(new.key)
    return 0


def _list_keys(arguments: argparse.Namespace) -> int:
    for line in Keys(_open_database(arguments)).lines():
        print(line)
    return 0


def _revoke_key(arguments: argparse.Namespace) -> int:
    Keys(_open_database(arguments)).revoke(arguments.id)
    return 0


def _set_quota(arguments: argparse.Namespace) -> int:
    if arguments.max_jobs < 0:
        raise ValueError("--max-jobs: expected a number from 0")
    with _open_database(arguments).write() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO quotas VALUES (?, ?, ?)",
            (arguments.project, arguments.accelerator, arguments.max_jobs),
        )
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    tls = arguments.tls_cert is not None or arguments.tls_key is not None
    if tls and (arguments.tls_cert is None or arguments.tls_key is None):
        raise ValueError("--tls-cert and --tls-key go together")
    if not tls and not _is_loopback(arguments.host):
        raise ValueError(
            f"--host {arguments.host}: keys would be readable on the way; give --tls-cert and --tls-key "
            "(http is for 127.0.0.1 and ::1 only)"
        )
    data = arguments.data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    lock = os.open(data / "gateway.lock", os.O_RDWR | os.O_CREAT, 0o600)  # held until the process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{data}: another gateway is using it") from None
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    settings = Settings(
        data=data,
        runner=tuple(shlex.split(arguments.runner)),
        accelerators=tuple(arguments.accelerator or ["cpu"]),
        price_table=arguments.prices,
        models_roots=tuple(arguments.models),
        hub_cache=arguments.hub_cache,
        outputs=dict(parse_output(text) for text in arguments.output),
        public_url=(arguments.public_url or f"{'https' if tls else 'http'}://{host}:{arguments.port}/v1").rstrip("/"),
        console_url=arguments.console_url,
        grace_seconds=arguments.grace_seconds,
        max_restarts=arguments.max_restarts,
        default_max_jobs=arguments.max_jobs,
        heartbeat_seconds=arguments.heartbeat_seconds,
        requests_per_second=arguments.requests_per_second,
        max_dataset_bytes=arguments.max_dataset_bytes,
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what a request brought is in no core dump
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    app = create_app(make_service(settings))
    logging.getLogger("gateway").info("serving %s for %s", settings.public_url, ", ".join(settings.accelerators))
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn's own handling comes on top, and this afterwards
        signal.signal(number, lambda *_: None)
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=arguments.tls_cert,
        ssl_keyfile=arguments.tls_key,
        timeout_graceful_shutdown=5,
        limit_concurrency=500,
        http="h11",
    )
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    sys.exit(main())
