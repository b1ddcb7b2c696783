"""job.json -> a checked JobSpec. The gateway has checked types and ranges; here counts that every member is there, and
that google-tunix can do what it says: nothing is ignored (../RUNNER.md)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from runner.failure import RunnerError

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Model:
    path: Path
    base_model: str
    revision: str | None


@dataclasses.dataclass(frozen=True)
class Data:
    path: Path
    format: str
    rows: int
    bytes: int
    sha256: str
    tokens: int
    target_tokens: int
    longest_row: int


@dataclasses.dataclass(frozen=True)
class Lora:
    rank: int
    alpha: float
    dropout: float
    target_modules: list[str]
    rslora: bool


@dataclasses.dataclass(frozen=True)
class Training:
    """Names, meanings and defaults are those of the native engine's training.*."""

    num_epochs: float
    max_steps: int | None
    batch_size: int | None
    batch_tokens: int | None
    gradient_accumulation_steps: int
    learning_rate: float
    lr_scheduler: str
    min_lr_ratio: float
    warmup_steps: int | None
    warmup_ratio: float | None
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    max_grad_norm: float
    seed: int
    precision: str | None
    shuffle: bool
    packing: bool
    activation_checkpointing: bool
    deterministic: bool
    on_nonfinite: str
    optimizer: str
    max_seq_length: int
    lora: Lora | None


@dataclasses.dataclass(frozen=True)
class Accelerator:
    name: str
    kind: str  # cpu, tpu, gpu
    cores: int
    fsdp: int
    tp: int


@dataclasses.dataclass(frozen=True)
class Output:
    checkpoint_every: int  # 0: only at the end
    keep: int
    model_dtype: str | None  # fp32, bf16, fp16; None: that of the base model's files


@dataclasses.dataclass(frozen=True)
class JobSpec:
    job_id: str
    model: Model
    data: Data
    training: Training
    accelerator: Accelerator
    output: Output
    sha256: str  # of what decides the numbers: all but job id and output

    @property
    def precision(self) -> str:
        """As the native engine: fp32 on a CPU, bf16 compute with fp32 masters elsewhere, unless the job says."""
        return self.training.precision or ("fp32" if self.accelerator.kind == "cpu" else "bf16_mixed")


def _build(kind: type, values: Any, where: str) -> Any:
    """An aggregate from an object that has exactly its members."""
    if not isinstance(values, dict):
        raise RunnerError("invalid_spec", f"{where}: expected an object")
    names = {field.name for field in dataclasses.fields(kind)}
    for name in sorted(names - values.keys()):
        raise RunnerError("invalid_spec", f"{where}.{name} is missing")
    for name in sorted(values.keys() - names):
        raise RunnerError("unsupported", f"{where}.{name} is not known to this runner")
    return kind(**values)


def _choice(value: str | None, where: str, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        known = ", ".join(str(choice) for choice in choices if choice is not None)
        raise RunnerError("unsupported", f"{where}: {value} is not one of {known}")


def _check(spec: JobSpec) -> None:
    training = spec.training
    _choice(spec.data.format, "data.format", ("tokens",))
    _choice(training.optimizer, "training.optimizer", ("adamw",))
    _choice(training.lr_scheduler, "training.lr_scheduler", ("linear", "cosine", "constant"))
    _choice(training.precision, "training.precision", (None, "fp32", "bf16_mixed", "bf16"))
    _choice(training.on_nonfinite, "training.on_nonfinite", ("stop", "skip"))
    _choice(spec.accelerator.kind, "accelerator.kind", ("cpu", "tpu", "gpu"))
    _choice(spec.output.model_dtype, "output.model_dtype", (None, "fp32", "bf16", "fp16"))
    if training.lora is not None and training.lora.dropout > 0:
        raise RunnerError(
            "unsupported",
            f"lora.dropout: {training.lora.dropout}: PeftTrainer hands its model no random numbers, so that nothing "
            "would be dropped",
            "set lora.dropout: 0, or train with --backend native",
        )
    if training.batch_size is None and training.batch_tokens is None:  # where both are given, batch_tokens wins
        raise RunnerError("invalid_spec", "training.batch_size and training.batch_tokens are both null")
    if spec.accelerator.fsdp * spec.accelerator.tp != spec.accelerator.cores:
        raise RunnerError(
            "invalid_spec",
            f"accelerator.mesh: fsdp {spec.accelerator.fsdp} times tp {spec.accelerator.tp} is not the "
            f"{spec.accelerator.cores} cores of {spec.accelerator.name}",
        )


def load_job_spec(path: Path) -> JobSpec:
    """Raises RunnerError: invalid_spec for a file that is no spec, unsupported for what cannot be honoured."""
    try:
        body = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunnerError("invalid_spec", f"{path}: not JSON: {error}") from error
    if not isinstance(body, dict) or body.get("schema_version") != SCHEMA_VERSION:
        raise RunnerError("invalid_spec", f"{path}: expected schema_version {SCHEMA_VERSION}")
    values = dict(body)
    del values["schema_version"]
    counted = {name: part for name, part in values.items() if name not in ("job_id", "output")}
    values["sha256"] = hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()
    try:
        model = dict(values["model"], path=Path(values["model"]["path"]))
        data = dict(values["data"], path=Path(values["data"]["path"]))
        training = dict(values["training"])
        if training.get("lora") is not None:
            training["lora"] = _build(Lora, training["lora"], "training.lora")
        accelerator = dict(values["accelerator"])
        mesh = accelerator.pop("mesh")
        accelerator.update(fsdp=mesh["fsdp"], tp=mesh["tp"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunnerError("invalid_spec", f"{path}: missing or of another type: {error}") from error
    values["model"] = _build(Model, model, "model")
    values["data"] = _build(Data, data, "data")
    values["training"] = _build(Training, training, "training")
    values["accelerator"] = _build(Accelerator, accelerator, "accelerator")
    values["output"] = _build(Output, values["output"], "output")
    spec = _build(JobSpec, values, "spec")
    _check(spec)
    return spec
