"""A key is nowhere but with its owner: canaries in everything that a gateway writes, shows or starts."""

import base64
import json
import os
import socket
import ssl
import subprocess
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import httpx

from conftest import Gateway, holders


def forms(secret: str) -> list[bytes]:
    """The ways in which it could have been written down."""
    texts = [
        secret,
        secret[-16:],
        base64.b64encode(secret.encode()).decode().rstrip("="),
        urllib.parse.quote(secret, safe=""),
        secret[len("tunix_sk_dev_") :],
    ]
    return [text.encode() for text in texts]


def test_a_key_is_in_no_file_no_log_no_answer_and_no_process(make_gateway: Callable[..., Gateway]) -> None:
    os.environ["TUNIX_API_KEY"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "tunix_sk_dev_canary_of_the_operator_0123456789"
    try:
        gateway = make_gateway()
        wrong = "tunix_sk_dev_" + "CanaryThatIsWrong" + "A" * 26
        gateway.start()
    finally:
        del os.environ["TUNIX_API_KEY"], os.environ["AWS_SECRET_ACCESS_KEY"]
    secrets = [gateway.key, wrong, "tunix_sk_dev_canary_of_the_operator_0123456789"]
    job = gateway.submit("canary", seed=1, steps=40)
    gateway.wait(job["id"], lambda now: now["step"] >= 2)
    (runner,) = holders(gateway.data / "jobs" / job["id"] / "runner.lock")
    processes = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (runner, gateway.process.pid))  # type: ignore[union-attr]
    processes += Path(f"/proc/{runner}/environ").read_bytes()

    answers = b""
    stray = gateway.client_for(wrong)
    for client in (gateway.client, stray):
        for path in (
            "/auth/test",
            "/jobs",
            f"/jobs/{job['id']}",
            f"/jobs/{job['id']}/events",
            "/nothing",
            f"/jobs?api_key={wrong}",
            f"/jobs/{wrong}",
            f"/jobs?limit={wrong}",
        ):
            answer = client.get(path)
            answers += answer.content + str(answer.headers).encode()
        for body in ({"api_key": wrong}, {"project_id": wrong + "!"}, gateway.job_body() | {"max_cost_usd": wrong}):
            answers += client.post("/jobs", json=body, headers={"Idempotency-Key": "k"}).content
    gateway.wait(job["id"])
    environment = gateway.wait(gateway.submit("environment", seed=17)["id"])
    answers += json.dumps(gateway.events(environment["id"])).encode()
    listing = gateway.command("keys", "list").encode()
    gateway.stop()

    written = {
        str(path.relative_to(gateway.folder)): path.read_bytes()
        for path in gateway.folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert any(name.endswith("gateway.db") for name in written) and "gateway.log" in written
    places = written | {"processes": processes, "keys list": listing, "answers": answers}
    for secret in secrets:
        for form in forms(secret):
            for name, text in places.items():
                assert form not in text, f"{form!r} in {name}"


def test_a_message_never_repeats_a_value_that_was_refused(gateway: Gateway) -> None:
    for body in (
        gateway.job_body() | {"max_cost_usd": "hunter2"},
        gateway.job_body() | {"experiment_name": "hunter2\n"},
        gateway.job_body() | {"labels": {"hunter2": 1}},
    ):
        answer = gateway.post_job("values", body)
        assert answer.status_code == 422
        if "labels" not in answer.text:
            assert "hunter2" not in answer.text


def test_files_are_the_owners_alone(gateway: Gateway) -> None:
    gateway.wait(gateway.submit("modes")["id"])
    for path in [gateway.data, *gateway.data.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_plain_http_is_for_this_machine_only(make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "example.org"):
        gateway = make_gateway("--host", host)
        try:
            gateway.start()
            raise RuntimeError("it started")
        except AssertionError as refusal:
            assert "--tls-cert" in str(refusal)


def test_with_a_certificate_it_speaks_tls(make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            key,
            "-out",
            certificate,
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )
    gateway = make_gateway("--host", "0.0.0.0", "--tls-cert", str(certificate), "--tls-key", str(key))
    gateway.start()
    trusting = ssl.create_default_context(cafile=str(certificate))
    answer = httpx.get(
        f"https://127.0.0.1:{gateway.port}/v1/auth/test",
        verify=trusting,
        headers={"Authorization": f"Bearer {gateway.key}"},
    )
    assert answer.status_code == 200
    with trusting.wrap_socket(
        socket.create_connection(("127.0.0.1", gateway.port)), server_hostname="127.0.0.1"
    ) as connection:
        assert connection.version() in ("TLSv1.2", "TLSv1.3")
