"""The whole way: gemma-sft submits to a gateway, which trains with the real runner, and is killed on the way."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workspace import GATEWAY, Workspace, digests

SETTINGS = {
    "model.base_model": "tiny/gemma-1",
    "tunix.project_id": "alpha",
    "model.tunix_job_config": {"accelerator": "cpu"},
    "training.max_steps": 30,
    "output.checkpoint_every": 5,
}


class Gateway:
    """`run.sh serve` over one data folder."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self.data, self.log = folder / "data", folder / "gateway.log"
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            self.port = server.getsockname()[1]
        self.models = folder / "models"
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(workspace.folder / "jax-cache"))
        self.environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
        self.key = self._run("keys", "create", "--project", "alpha").strip()
        self.process: subprocess.Popen[bytes] | None = None

    def _run(self, *words: str) -> str:
        command = [str(GATEWAY / "run.sh"), *words, "--data", str(self.data)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def start(self) -> None:
        words = ["serve", "--data", str(self.data), "--port", str(self.port), "--models", str(self.models)]
        words += ["--runner", f"{sys.executable} -m runner"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(GATEWAY / "run.sh"), *words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, "the gateway to answer")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def end(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(timeout=120)

    def events(self) -> str:
        """What all attempts of all jobs have written."""
        return "".join(path.read_text() for path in sorted(self.data.rglob("attempt-*/events.jsonl")))

    def client(self) -> dict[str, str]:
        return {
            "TUNIX_MODE": "real",
            "TUNIX_API_KEY": self.key,
            "TUNIX_BASE_URL": f"http://127.0.0.1:{self.port}/v1",
            "TUNIX_RETRY_SECONDS": "60",
        }


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


@pytest.fixture
def gateway(workspace: Workspace, tmp_path: Path) -> Iterator[Gateway]:
    for root in (workspace.folder, tmp_path / "models"):  # the client's and the gateway's
        if not (root / "tiny").exists():
            shutil.copytree(workspace.model(1), root / "tiny" / "gemma-1")
    started = Gateway(workspace, tmp_path)
    started.start()
    yield started
    started.end(signal.SIGTERM)


@pytest.mark.parametrize("killed", ["gateway", "gateway and runner"])
def test_a_job_whose_gateway_is_killed_ends_completed_with_the_right_model(
    workspace: Workspace, gateway: Gateway, killed: str
) -> None:
    name = f"killed-{killed.replace(' ', '-')}"
    config = workspace.config(name, workspace.model(1), SETTINGS)
    run = f"{name}-run"
    workspace.native("train", "--config", config.name, "--output", run, "--no-wait", **gateway.client())
    wait_until(lambda: '"type": "checkpoint"' in gateway.events(), "a checkpoint")
    gateway.end(signal.SIGKILL)
    assert '"type": "completed"' not in gateway.events()
    if killed != "gateway":
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and str(gateway.data).encode() in _command_of(entry):
                os.kill(int(entry.name), signal.SIGKILL)
    gateway.start()
    # The same command goes on with the job that it submitted, and fetches the model.
    workspace.native("train", "--config", config.name, "--output", run, **gateway.client())
    downloaded = workspace.folder / run / "downloaded" / "final_model"

    undisturbed = workspace.job(config, workspace.model(1), f"{name}-undisturbed", model__base_model="tiny/gemma-1")
    workspace.train_tunix(undisturbed)
    assert digests(downloaded) == digests(undisturbed / "output" / "final_model")
    attempts = list(gateway.data.rglob("attempt-*/events.jsonl"))
    assert len(attempts) == (1 if killed == "gateway" else 2)


def _command_of(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
