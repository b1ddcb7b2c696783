"""A folder to work in as a user would: what gemma-sft makes and its client uploads, and what the runner makes of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from runner.safetensors_file import SafetensorsFile

ROOT = Path(__file__).resolve().parents[4]
GATEWAY = ROOT / "trainer" / "tunix" / "gateway"
_BIN = Path(os.environ.get("GEMMA_SFT_BIN", ROOT / "build" / "release" / "bin"))
# The native engine's training.* that a job does not send because they have no effect or are not given.
_DEFAULTS: dict[str, Any] = {
    "num_epochs": 3,
    "max_steps": None,
    "batch_size": None,
    "batch_tokens": None,
    "min_lr_ratio": 0.0,
    "warmup_steps": None,
    "warmup_ratio": None,
    "precision": None,
    "lora": None,
}
_WORDS = ("river", "stone", "cloud", "lemon", "violin", "garden", "table", "silver")


@dataclasses.dataclass(frozen=True)
class RunnerResult:
    code: int
    events: list[dict[str, Any]]
    log: str

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    @property
    def failure(self) -> dict[str, Any]:
        return self.of("failed")[0]


def _rows(count: int) -> str:
    lines = []
    for row in range(count):
        more = " ".join(_WORDS[: row % 5])
        prompt = f"Reverse the list: {_WORDS[row % 8]} {_WORDS[(row // 8 + row) % 8]} {more} number {row}"
        response = " ".join(reversed(_WORDS[: 1 + row % 4]))
        lines.append(json.dumps({"id": f"row-{row}", "prompt": prompt, "response": response}))
    return "\n".join(lines) + "\n"


class Workspace:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        corpus = "".join(
            f"Reverse the list of number {line * 37}: {' '.join(_WORDS)}, the user and the model answer in turn.\n"
            for line in range(300)
        )
        (folder / "corpus.txt").write_text(corpus)
        (folder / "rows.jsonl").write_text(_rows(22))
        self.native("tokenizer", "train", "--corpus", "corpus.txt", "--vocab-size", "420", "--output", "tok")

    def native(self, *words: str, **environment: str) -> str:
        """gemma-sft with these words; its stdout."""
        own = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "2"}
        done = subprocess.run(
            [str(_BIN / "gemma-sft"), *words], cwd=self.folder, env=own | environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"gemma-sft {' '.join(words)}: {done.stderr}{done.stdout}"
        return done.stdout

    def model(self, family: int, dtype: str = "fp32") -> Path:
        """A tiny Gemma of that family with random weights, made by gemma-sft."""
        folder = self.folder / f"gemma-{family}-{dtype}"
        if not folder.exists():
            words = ["--preset", f"tiny-gemma-{family}", "--tokenizer", "tok", "--dtype", dtype, "--seed", "1"]
            self.native("model", "init", *words, "--output", folder.name)
        return folder

    def config(self, name: str, model: Path, settings: dict[str, Any]) -> Path:
        """A configuration of ten steps over 22 rows, with `settings` on top; None takes a key out."""
        values: dict[str, Any] = {
            "model.base_model": model.name,
            "model.max_seq_length": 128,
            "dataset.data_path": "rows.jsonl",
            "training.max_steps": 10,
            "training.batch_size": 4,
            "training.learning_rate": 1e-3,
            "training.lr_scheduler": "cosine",
            "training.min_lr_ratio": 0.1,
            "training.warmup_steps": 2,
            "training.weight_decay": 0.1,
            "training.precision": "fp32",
            "output.checkpoint_every": 4,
            "output.model_dtype": "fp32",
        }
        values.update(settings)
        sections: dict[str, list[str]] = {}
        for key, value in values.items():
            if value is None:
                continue
            section, _, leaf = key.partition(".")
            sections.setdefault(section, []).append(f"  {leaf}: {json.dumps(value)}")
        text = "".join(f"{section}:\n" + "\n".join(lines) + "\n" for section, lines in sections.items())
        path = self.folder / f"{name}.yaml"
        path.write_text(text)
        return path

    def train_native(self, config: Path) -> Path:
        """Trains with the native engine; the run folder."""
        run = self.folder / f"{config.stem}-native"
        self.native("train", "--config", config.name, "--output", run.name, "--device", "cpu")
        return run

    def job(self, config: Path, model: Path, name: str | None = None, **changes: Any) -> Path:
        """A work folder of the runner for what gemma-sft's client uploads and submits, in mock mode. `changes` to the
        spec are given as section__key."""
        sent = self.folder / f"{config.stem}-sent"
        if not sent.exists():
            words = ["--config", config.name, "--output", sent.name, "--backend", "tunix", "--no-wait"]
            self.native("train", *words, TUNIX_MODE="mock")
        body = json.loads((sent / "job_request.json").read_text())
        rows = (sent / "dataset.jsonl").read_bytes()
        lengths = [len(json.loads(line)["input_ids"]) for line in rows.splitlines()]
        targets = sum(sum(json.loads(line)["loss_mask"]) for line in rows.splitlines())
        spec: dict[str, Any] = {
            "schema_version": 1,
            "job_id": "job_abc123xyz",
            "model": {"path": str(model), "base_model": body["model"]["base_model"], "revision": None},
            "data": {
                "path": str(sent / "dataset.jsonl"),
                "format": "tokens",
                "rows": len(lengths),
                "bytes": len(rows),
                "sha256": hashlib.sha256(rows).hexdigest(),
                "tokens": sum(lengths),
                "target_tokens": targets,
                "longest_row": max(lengths),
            },
            "training": _DEFAULTS | body["training"],
            "accelerator": {"name": "cpu", "kind": "cpu", "cores": 1, "mesh": {"fsdp": 1, "tp": 1}},
            "output": {name: body["output"].get(name) for name in ("checkpoint_every", "keep", "model_dtype")},
        }
        for change, value in changes.items():
            section, _, key = change.partition("__")
            spec[section][key] = value
        workdir = self.folder / f"{name or config.stem}-job"
        workdir.mkdir()
        (workdir / "job.json").write_text(json.dumps(spec))
        return workdir

    def start_runner(self, workdir: Path, *words: str) -> subprocess.Popen[bytes]:
        """The real program, as the gateway starts it."""
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(self.folder / "jax-cache"))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(GATEWAY),
            "PYTHONUNBUFFERED": "1",
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        command = [
            sys.executable,
            "-m",
            "runner",
            "--spec",
            str(workdir / "job.json"),
            "--workdir",
            str(workdir),
            *words,
        ]
        with (workdir / "events.jsonl").open("wb") as out, (workdir / "runner.log").open("wb") as log:
            return subprocess.Popen(
                command, cwd=workdir, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=log
            )

    def finish_runner(self, process: subprocess.Popen[bytes], workdir: Path) -> RunnerResult:
        code = process.wait(timeout=900)
        return RunnerResult(code, read_events(workdir), (workdir / "runner.log").read_text())

    def run(self, workdir: Path, *words: str) -> RunnerResult:
        return self.finish_runner(self.start_runner(workdir, *words), workdir)

    def train_tunix(self, workdir: Path, *words: str) -> RunnerResult:
        result = self.run(workdir, *words)
        assert result.code == 0, f"{result.events[-1:]}\n{result.log[-3000:]}"
        return result


def read_events(workdir: Path) -> list[dict[str, Any]]:
    whole, _, _ = (workdir / "events.jsonl").read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]


def wait_for_event(process: subprocess.Popen[bytes], workdir: Path, kind: str, step: int = 0) -> None:
    """Until an event of that kind (of that step or a later one) is there."""
    while process.poll() is None:
        if any(e["type"] == kind and e.get("step", 0) >= step for e in read_events(workdir)):
            return
        time.sleep(0.002)
    raise AssertionError(f"the runner ended without {kind}: {(workdir / 'runner.log').read_text()[-2000:]}")


def tensors(path: Path) -> dict[str, np.ndarray]:
    file = SafetensorsFile(path)
    return {name: file.array(info).astype(np.float32) for name, info in file.tensors.items()}


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def digests(folder: Path) -> dict[str, str]:
    """Of every file but SHA256SUMS, which says the same of the others."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "SHA256SUMS"
    }
