"""The one command, as an operator types it."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from conftest import FAKE_RUNNER, GATEWAY, free_port

RUN = str(GATEWAY / "run.sh")


def test_one_command_serves_and_another_makes_a_key(tmp_path: Path) -> None:
    made = subprocess.run(
        [RUN, "keys", "create", "--project", "alpha"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    key = made.stdout.strip()
    assert key.startswith("tunix_sk_dev_") and key not in made.stderr
    port = free_port()
    words = [RUN, "--port", str(port), "--runner", f"{sys.executable} {FAKE_RUNNER}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 240  # on a busy machine
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.05)
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/auth/test", headers={"Authorization": f"Bearer {key}"})
        assert answer.json()["projects"] == [{"id": "alpha", "role": "member"}]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert (tmp_path / "gateway-data" / "gateway.db").exists()


def test_what_is_wrong_with_the_options_is_said_in_one_line(tmp_path: Path) -> None:
    for words, said in (
        (["serve", "--accelerator", "tpu-v9"], "has no tpu-v9"),
        (["serve", "--prices", "/nonexistent"], "no price table"),
        (["serve", "--output", "s3://x=/y"], "gs://BUCKET"),
        (["serve", "--tls-cert", "x"], "go together"),
        (["keys", "create", "--project", "../x"], "expected letters"),
        (["keys", "create", "--project", "x", "--expires-in", "soon"], "expected a number and s, m, h or d"),
        (["keys", "revoke", "key_none"], "there is no such key"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *words, "--data", str(tmp_path / "data")],
            cwd=GATEWAY,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, (words, done.stderr)
