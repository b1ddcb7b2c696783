"""A gateway as a process of its own, with the fake runner, and the requests that tests make of it."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[4]
GATEWAY = ROOT / "trainer" / "tunix" / "gateway"
BIN = Path(os.environ.get("GEMMA_SFT_BIN", ROOT / "build" / "release" / "bin"))
FAKE_RUNNER = Path(__file__).with_name("fake_runner.py")
sys.path.insert(0, str(GATEWAY))

from gateway.database import Database  # noqa: E402  (it needs the path above)
from gateway.keys import Keys  # noqa: E402

# What goes wrong in a job, by training.seed.
BEHAVIOURS: dict[str, dict[str, Any]] = {
    "1": {"step_seconds": 0.02},
    "2": {"step_seconds": 0.5},
    "3": {"crash_at": 6, "crashes": 1},
    "4": {"crash_at": 2, "crashes": 99},
    "5": {"fail_at": 3, "failure": {"code": "out_of_memory", "message": "RESOURCE_EXHAUSTED: hbm", "exit_code": 11}},
    "6": {"fail_at": 3, "failure": {"code": "io_error", "message": "flaky", "exit_code": 9, "retryable": True}},
    "7": {"step_seconds": 0.1, "deaf": True},
    "8": {"torn_line_at": 4},
    "9": {"noise_at": 4},
    "10": {"also_list": ["final_model/secret"], "plant": "link"},
    "11": {"also_list": ["final_model/etc/hostname"], "plant": "folder_link"},
    "12": {"also_list": ["final_model/pipe"], "plant": "pipe"},
    "13": {"plant": "changed"},
    "14": {"also_list": ["final_model/../../../../gateway.db"]},
    "15": {"also_list": ["/etc/hostname"]},
    "16": {"also_list": ["final_model/CONFIG.json"]},
    "17": {"environment": True},
}
TINY_MODEL = {
    "model_type": "gemma",
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
}


def rows(count: int = 4, token: int = 5) -> bytes:
    lines = [
        json.dumps({"id": f"row-{i}", "input_ids": [2, token + i, 7, 1], "loss_mask": [0, 0, 1, 1]})
        for i in range(count)
    ]
    return ("\n".join(lines) + "\n").encode()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


class Gateway:
    """One data folder; its process may be stopped, killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "gateway.log"
        self.port = free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        model = folder / "models" / "tiny" / "gemma"
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps(TINY_MODEL))
        (folder / "behaviours.json").write_text(json.dumps(BEHAVIOURS))
        mask = os.umask(0o077)  # as the gateway does; start_test.py makes a key as an operator types it
        self.data.mkdir()
        self.key = Keys(Database(self.data / "gateway.db")).create(projects=["alpha", "beta"]).key
        os.umask(mask)
        self.client = self.client_for(self.key)

    def client_for(self, key: str) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}/v1",
            timeout=60,
            headers={"Authorization": f"Bearer {key}", "Tunix-Contract": "1"},
        )

    def command(self, *words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "gateway", *words, "--data", str(self.data)],
            cwd=GATEWAY,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def words(self) -> list[str]:
        runner = f"{sys.executable} {FAKE_RUNNER} --behaviours {self.folder / 'behaviours.json'}"
        own = [
            "--data",
            str(self.data),
            "--port",
            str(self.port),
            "--models",
            str(self.folder / "models"),
            "--runner",
            runner,
        ]
        return [sys.executable, "-m", "gateway", "serve", *own, *self.options]

    def start(self) -> "Gateway":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.words(), cwd=GATEWAY, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 240  # on a busy machine
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the gateway ended: {self.log.read_text()[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
                return self
            except OSError:
                time.sleep(0.02)
        raise AssertionError("the gateway does not answer")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def close(self) -> None:
        self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for job in (self.data / "jobs").glob("*/runner.lock"):
            for pid in holders(job):
                os.kill(pid, signal.SIGKILL)

    # ---- requests ----

    def upload(self, data: bytes, project: str = "alpha", key: str | None = None) -> dict[str, Any]:
        body = dataset_body(data, project)
        answer = self.client.post(
            "/datasets", json=body, headers={"Idempotency-Key": key or f"d-{body['sha256'][:20]}-{project}"}
        )
        assert answer.status_code in (200, 201), answer.text
        dataset: dict[str, Any] = answer.json()
        if dataset["state"] == "awaiting_upload":
            dataset = self.put(dataset["id"], data, 0, len(data)).json()
        return dataset

    def put(self, dataset_id: str, data: bytes, first: int, total: int) -> httpx.Response:
        return self.client.put(
            f"/datasets/{dataset_id}/content",
            content=data,
            headers={
                "Content-Range": f"bytes {first}-{first + len(data) - 1}/{total}",
                "Content-Type": "application/octet-stream",
            },
        )

    def submit(self, key: str, seed: int = 0, **changes: Any) -> dict[str, Any]:
        answer = self.post_job(key, self.job_body(seed, **changes))
        assert answer.status_code in (200, 201), answer.text
        job: dict[str, Any] = answer.json()
        return job

    def job_body(self, seed: int = 0, steps: int = 10, **changes: Any) -> dict[str, Any]:
        body: dict[str, Any] = {
            "project_id": "alpha",
            "experiment_name": "first",
            "dataset_id": None,
            "model": {"base_model": "tiny/gemma", "revision": None},
            "training": {"max_steps": steps, "seed": seed, "learning_rate": 1e-3},
            "resources": {"accelerator": None, "region": None, "spot": False},
            "output": {"uri": None, "checkpoint_every": 3, "keep": 2},
            "max_cost_usd": None,
            "timeout_seconds": None,
            "labels": {"run_id": "r"},
            "client": {"name": "test", "version": "1", "config_sha256": "0" * 64},
        }
        body |= changes
        if body["dataset_id"] is None:
            body["dataset_id"] = self.upload(rows(), body["project_id"])["id"]
        return body

    def post_job(self, key: str, body: dict[str, Any]) -> httpx.Response:
        return self.client.post("/jobs", json=body, headers={"Idempotency-Key": key})

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def wait(
        self, job_id: str, until: Callable[[dict[str, Any]], bool] | None = None, seconds: float = 60
    ) -> dict[str, Any]:
        """The job once it has ended, or as `until` says."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job = self.job(job_id)
            if until(job) if until else job["finished_at"] is not None:
                return job
            time.sleep(0.05)
        raise AssertionError(f"{self.job(job_id)}\n{self.log.read_text()[-3000:]}")

    def events(self, job_id: str, after: int = 0) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        while True:
            page = self.client.get(f"/jobs/{job_id}/events", params={"after": after}).json()
            events += page["data"]
            if not page["data"]:
                return events
            after = page["last_seq"]

    def artifacts(self, job_id: str) -> list[dict[str, Any]]:
        page = self.client.get(f"/jobs/{job_id}/artifacts").json()
        data: list[dict[str, Any]] = page["data"]
        return data

    def download(self, job_id: str, path: str, **headers: str) -> httpx.Response:
        return self.client.get(f"/jobs/{job_id}/artifacts/{path}", headers=headers)

    def weights(self, job_id: str) -> str:
        data = self.download(job_id, "final_model/model.safetensors").content
        return hashlib.sha256(data).hexdigest()


def dataset_body(data: bytes, project: str = "alpha") -> dict[str, Any]:
    return {
        "project_id": project,
        "dataset_key": "rows-v1",
        "build_id": None,
        "format": "tokens",
        "line_count": data.count(b"\n"),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "manifest": {"any": ["thing"]},
    }


def expected_weights(data: bytes, steps: int = 10) -> str:
    """What the fake runner makes of these rows, without a gateway."""
    state = hashlib.sha256(data).hexdigest()
    for step in range(1, steps + 1):
        state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
    return hashlib.sha256((state * 4096).encode()).hexdigest()


def holders(lock: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and any(fd.resolve() == lock for fd in (entry / "fd").iterdir()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One for the tests of a file."""
    gateway = Gateway(
        tmp_path_factory.mktemp("gateway"),
        "--heartbeat-seconds",
        "0.3",
        "--max-jobs",
        "50",
        "--requests-per-second",
        "1000",
        "--grace-seconds",
        "2",
    ).start()
    yield gateway
    gateway.close()


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    made: list[Gateway] = []

    def make(*options: str) -> Gateway:
        gateway = Gateway(tmp_path / f"gateway-{len(made)}", *options)
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        gateway.close()
