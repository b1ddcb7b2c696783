"""gemma-sft against the gateway, as a user types it: the two ends of the contract in one place, with the fake runner."""

import hashlib
import json
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import BIN, Gateway, expected_weights


class Client:
    """A folder with rows, a model's files and a configuration, and gemma-sft in it."""

    def __init__(self, folder: Path, gateway: Gateway) -> None:
        self.folder = folder
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "TUNIX_MODE": "real",
            "TUNIX_API_KEY": gateway.key,
            "TUNIX_BASE_URL": f"http://127.0.0.1:{gateway.port}/v1",
            "TUNIX_PROJECT_ID": "alpha",
            "TUNIX_RETRY_SECONDS": "20",
            "LANG": "C.UTF-8",
        }
        words = "the user asks and the model answers in turn: river stone cloud lemon violin garden table silver\n"
        (folder / "corpus.txt").write_text(words * 200)
        (folder / "rows.jsonl").write_text(
            "".join(
                json.dumps({"id": f"r{i}", "prompt": f"list {i}: river stone", "response": f"stone river {i}"}) + "\n"
                for i in range(9)
            )
        )
        self("tokenizer", "train", "--corpus", "corpus.txt", "--vocab-size", "400", "--output", "tokenizer")
        self("model", "init", "--preset", "tiny-gemma-1", "--tokenizer", "tokenizer", "--output", "tiny/client")
        target = gateway.folder / "models" / "tiny" / "client"  # a copy: links out of that folder are not followed
        shutil.copytree(folder / "tiny" / "client", target)

    def __call__(self, *words: str, code: int = 0, **environment: str) -> str:
        done = subprocess.run(
            [BIN / "gemma-sft", *words],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        text = done.stdout + done.stderr
        assert done.returncode == code, (words, done.returncode, text)
        assert self.environment["TUNIX_API_KEY"] not in text
        return text

    def config(self, name: str, **settings: Any) -> str:
        values = {
            "training.max_steps": 10,
            "training.batch_size": 2,
            "output.checkpoint_every": 3,
            "tunix.experiment_name": name,
        } | {key.replace("__", "."): value for key, value in settings.items()}
        sections: dict[str, list[str]] = {"model": ["base_model: tiny/client"], "dataset": ["data_path: rows.jsonl"]}
        for key, value in values.items():
            if value is None:
                continue
            section, name_in_section = key.split(".")
            sections.setdefault(section, []).append(f"{name_in_section}: {json.dumps(value)}")
        text = "".join(
            f"{section}:\n" + "".join(f"  {line}\n" for line in lines) for section, lines in sections.items()
        )
        (self.folder / f"{name}.yaml").write_text(text)
        return f"{name}.yaml"

    def job_id(self, text: str) -> str:
        match = re.search(r"job_[a-z0-9]{9,32}", text)
        assert match is not None, text
        return match[0]


@pytest.fixture(scope="module")
def client(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(tmp_path_factory.mktemp("client"), gateway)


def test_the_key_the_quota_and_the_estimate_are_told(client: Client) -> None:
    assert "project      alpha" in client("auth", "test")
    assert "50 of 50 available" in client("quota", "--accelerator", "cpu")
    text = client("jobs", "estimate", "--config", client.config("estimate"))
    assert f"says {client.environment['TUNIX_BASE_URL']}" in text
    assert " hours, $" in text, "the service knows how many tokens there are"
    client("auth", "test", code=4, TUNIX_API_KEY="tunix_sk_dev_nobody")
    assert "401 Unauthorized - Invalid API key" in client("auth", "test", code=4, TUNIX_API_KEY="tunix_sk_dev_nobody")


def test_train_submits_watches_and_downloads_what_the_service_made(client: Client, gateway: Gateway) -> None:
    text = client("train", "--config", client.config("whole"), "--output", "run")
    job_id = client.job_id(text)
    for line in (
        "✅ Config loaded: whole.yaml",
        "✅ Tunix client initialized (real mode)",
        "✅ Dataset loaded: 9 training examples",
        f"✅ Job submitted to Tunix: {job_id}",
        f"🔗 Monitor: http://127.0.0.1:{gateway.port}/v1/jobs/{job_id}",
        "⏳ Polling for completion...",
        f"✅ Job completed: {job_id}",
    ):
        assert line in text
    downloaded = client.folder / "run" / "downloaded"
    sent = (client.folder / "run" / "dataset.jsonl").read_bytes()
    model = (downloaded / "final_model" / "model.safetensors").read_bytes()
    assert hashlib.sha256(model).hexdigest() == expected_weights(sent)
    listed = json.loads((downloaded / "artifacts.json").read_text())
    assert {entry["kind"] for entry in listed["artifacts"]} == {"final_model", "metrics", "log", "run_manifest"}
    request = json.loads((client.folder / "run" / "job_request.json").read_text())
    spec = gateway.job(job_id)["spec"]

    def holds(ours: Any, theirs: Any) -> bool:
        """Is everything that was sent in what the service has?"""
        if isinstance(theirs, dict):
            return all(holds(ours[key], value) for key, value in theirs.items())
        return bool(ours == theirs)

    assert holds(spec, request), (spec, request)
    assert "before: " + job_id in client("train", "--config", "whole.yaml", "--output", "run")
    assert job_id in client("jobs", "list", "--experiment", "whole")
    assert f"{job_id}: completed" in client("jobs", "show", job_id)
    watched = client("jobs", "watch", job_id)
    assert "step 10 of 10" in watched or "completed" in watched
    client("jobs", "download", job_id, "--output-dir", "elsewhere")
    assert (client.folder / "elsewhere" / "final_model" / "model.safetensors").read_bytes() == model


def test_a_job_is_cancelled_by_a_later_command(client: Client) -> None:
    config = client.config("cancelled", training__seed=1, training__max_steps=2000)
    job_id = client.job_id(client("train", "--config", config, "--no-wait"))
    client("jobs", "cancel", job_id)
    text = client("jobs", "watch", job_id, code=7)
    assert "cancelled" in text
    client("jobs", "download", job_id, "--output-dir", "nothing", code=7)


def test_every_end_has_its_exit_code(client: Client, gateway: Gateway) -> None:
    text = client("train", "--config", client.config("memory", training__seed=5), code=11)
    assert "RESOURCE_EXHAUSTED" in text
    with_limit = client.config("late", training__seed=1, training__max_steps=100_000, tunix__timeout_seconds=60)
    job_id = client.job_id(client("train", "--config", with_limit, "--no-wait"))
    with sqlite3.connect(gateway.data / "gateway.db") as database:
        database.execute("UPDATE jobs SET spec = json_set(spec, '$.timeout_seconds', 1) WHERE id = ?", (job_id,))
    assert "timeout" in client("jobs", "watch", job_id, code=8)
    gateway.command("quota", "--project", "beta", "--accelerator", "cpu", "--max-jobs", "0")
    text = client("train", "--config", client.config("quota"), code=5, TUNIX_PROJECT_ID="beta")
    assert "429 Too Many Requests - cpu quota exceeded" in text
    text = client("train", "--config", client.config("bucket", output__run_dir="gs://nobody/runs"), code=10)
    assert "422" in text and "output.uri" in text


def test_every_key_of_training_is_accepted_as_the_client_sends_it(client: Client) -> None:
    everything = client.config(
        "everything",
        training__num_epochs=0.5,
        training__gradient_accumulation_steps=2,
        training__learning_rate=1e-3,
        training__lr_scheduler="cosine",
        training__min_lr_ratio=0.1,
        training__warmup_ratio=0.1,
        training__weight_decay=0.1,
        training__adam_beta1=0.8,
        training__adam_beta2=0.9,
        training__adam_epsilon=1e-6,
        training__max_grad_norm=0.5,
        training__precision="bf16_mixed",
        training__shuffle=False,
        training__packing=False,
        training__activation_checkpointing=True,
        training__deterministic=True,
        training__on_nonfinite="skip",
        training__optimizer="adamw",
        lora__rank=4,
        lora__alpha=8,
        lora__rslora=True,
        lora__target_modules=["q_proj", "*_proj"],
        output__model_dtype="fp32",
        tunix__keep_checkpoints=3,
        tunix__timeout_seconds=3600,
        model__max_seq_length=64,
    )
    assert "Job completed" in client("train", "--config", everything)
    tokens = client.config("tokens", training__batch_size=None, training__batch_tokens=64, training__warmup_steps=1)
    assert "Job completed" in client("train", "--config", tokens)


def test_a_gateway_that_dies_while_the_client_follows_loses_nothing(
    make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    gateway = make_gateway().start()
    client = Client(tmp_path, gateway)
    config = client.config("outlived", training__seed=1, training__max_steps=150)
    process = subprocess.Popen(
        [BIN / "gemma-sft", "train", "--config", config, "--output", "run"],
        cwd=tmp_path,
        env=client.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (listed := gateway.client.get("/jobs").json()["data"]) or listed[0]["step"] < 5:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.05)
    gateway.kill()
    gateway.start()
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    sent = (tmp_path / "run" / "dataset.jsonl").read_bytes()
    model = (tmp_path / "run" / "downloaded" / "final_model" / "model.safetensors").read_bytes()
    assert hashlib.sha256(model).hexdigest() == expected_weights(sent, 150)
    assert len(gateway.client.get("/jobs").json()["data"]) == 1
