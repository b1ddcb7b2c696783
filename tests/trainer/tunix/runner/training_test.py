"""The program on jobs that are out of the ordinary: other devices, other precisions, what fails and how."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from runner import training
from runner.checkpoints import CheckpointFolder
from runner.events import EventWriter
from runner.failure import RunnerError
from runner.gemma import abstract_model
from runner.job_spec import load_job_spec
from runner.model_config import load_gemma_config
from runner.plan import Plan
from runner.rows import load_rows
from runner.weights import WeightFiles, load_model

from workspace import RunnerResult, Workspace, digests, tensors

FOUR = {"name": "cpu", "kind": "cpu", "cores": 4, "mesh": {"fsdp": 2, "tp": 2}}


def _losses(result: RunnerResult) -> list[float]:
    return [row["loss"] for row in result.of("step")]


def _on_four(workdir: Path) -> Path:
    spec = json.loads((workdir / "job.json").read_text())
    spec["accelerator"] = FOUR
    (workdir / "job.json").write_text(json.dumps(spec))
    return workdir


def test_a_mesh_of_four_devices_gives_the_same_numbers_and_goes_on_after_a_stop(workspace: Workspace) -> None:
    model = workspace.model(1)
    config = workspace.config("mesh", model, {"training.max_steps": 6})
    alone = workspace.train_tunix(workspace.job(config, model))
    workdir = _on_four(workspace.job(config, model, "mesh-of-four"))
    meshed = workspace.train_tunix(workdir)
    assert len(meshed.of("started")[0]["devices"]) == 4
    assert _losses(meshed) == pytest.approx(_losses(alone), abs=1e-5)
    # Going on from the checkpoint of step 4 lays it out over the mesh again.
    result = (workdir / "output" / "final_model").rename(workdir / "first")
    (workdir / "checkpoints" / "6").rename(workdir / "6")
    resumed = workspace.train_tunix(workdir, "--resume")
    assert resumed.of("started")[0]["resumed_from"] == 4
    assert digests(workdir / "output" / "final_model") == digests(result)


def test_adapters_are_laid_out_over_a_mesh_too(workspace: Workspace) -> None:
    model = workspace.model(3)
    settings = {"lora.rank": 4, "training.gradient_accumulation_steps": 2, "training.max_steps": 4}
    config = workspace.config("mesh-lora", model, settings)
    alone = workspace.train_tunix(workspace.job(config, model))
    meshed = workspace.train_tunix(_on_four(workspace.job(config, model, "mesh-lora-of-four")))
    assert _losses(meshed) == pytest.approx(_losses(alone), abs=1e-5)


def test_bf16_trains_near_fp32(workspace: Workspace) -> None:
    model = workspace.model(2, "bf16")
    config = workspace.config("bf16", model, {"training.max_steps": 6})
    exact = workspace.train_tunix(workspace.job(config, model))
    for precision, near in (("bf16_mixed", 0.05), ("bf16", 0.2)):
        workdir = workspace.job(config, model, f"bf16-{precision}", training__precision=precision)
        rough = workspace.train_tunix(workdir)
        assert _losses(rough) != _losses(exact)
        assert _losses(rough) == pytest.approx(_losses(exact), abs=near)


def test_adapters_stay_in_fp32_over_a_bf16_base(workspace: Workspace) -> None:
    model = workspace.model(1, "bf16")
    config = workspace.config("bf16-lora", model, {"lora.rank": 4, "training.max_steps": 4})
    exact = workspace.train_tunix(workspace.job(config, model))
    workdir = workspace.job(config, model, "bf16-lora-rough", training__precision="bf16_mixed")
    rough = workspace.train_tunix(workdir)
    assert _losses(rough) == pytest.approx(_losses(exact), abs=0.05)
    adapter = tensors(workdir / "output" / "final_model" / "adapter_model.safetensors")
    # A number that bf16 does not hold: it came from fp32 arithmetic.
    assert any((value.view(np.uint32) & 0xFFFF).any() for name, value in adapter.items() if "lora_B" in name)


def test_a_dry_run_checks_everything_and_leaves_nothing(workspace: Workspace) -> None:
    model = workspace.model(1)
    workdir = workspace.job(workspace.config("dry", model, {}), model)
    before = sorted(workdir.iterdir())
    result = workspace.run(workdir, "--dry-run")
    assert result.code == 0
    assert [event["type"] for event in result.events] == ["started", "completed"]
    assert result.events[0]["total_steps"] == 10
    assert sorted(workdir.iterdir()) == sorted([*before, workdir / "events.jsonl", workdir / "runner.log"])


@pytest.mark.parametrize(
    ("change", "value", "code", "exit_code", "named"),
    [
        ("training__optimizer", "adafactor", "unsupported", 2, "training.optimizer"),
        ("model__path", "/nowhere", "model_invalid", 12, "config.json"),
        ("data__sha256", "0" * 64, "data_invalid", 3, "SHA-256"),
        ("data__rows", 23, "data_invalid", 3, "23"),
        ("data__path", "/nowhere.jsonl", "io_error", 9, "nowhere.jsonl"),
        ("training__max_seq_length", 5, "data_invalid", 3, "max_seq_length is 5"),
        ("accelerator__kind", "tpu", "unsupported", 2, "no tpu here"),
    ],
)
def test_what_cannot_be_done_is_one_failed_event_and_its_exit_code(
    workspace: Workspace, change: str, value: Any, code: str, exit_code: int, named: str
) -> None:
    model = workspace.model(1)
    workdir = workspace.job(workspace.config("fails", model, {}), model, f"fails-{change}", **{change: value})
    result = workspace.run(workdir)
    assert result.code == exit_code, result.log[-2000:]
    assert [event["type"] for event in result.events] == ["failed"]
    assert result.failure["code"] == code
    assert named in result.failure["message"]
    assert not (workdir / "output").exists()


# ---- runs in this process --------------------------------------------------------------------------------------------


def _run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any], poisoned: bool
) -> tuple[Any, list[Any], Callable[[], int]]:
    """A run in this process: what it trains, its events, and the call that trains. `poisoned`: the loss is NaN for
    micro-batches with row 5 of the data."""
    model_folder = workspace.model(1)
    workdir = workspace.job(workspace.config(name, model_folder, settings), model_folder)
    spec = load_job_spec(workdir / "job.json")
    config = load_gemma_config(model_folder)
    rows = load_rows(spec.data, config.vocab_size, 128)
    bad = jnp.asarray(rows.ids(5))
    plain = training.make_loss(config, "fp32", 1)

    def nan_for_row_5(model: Any, ids: Any, targets: Any, weights: Any, lengths: Any, denominator: Any) -> Any:
        hit = jnp.any(jnp.all(ids[:, : len(bad)] == bad, axis=1))
        return jnp.where(hit, jnp.nan, plain(model, ids, targets, weights, lengths, denominator))

    monkeypatch.setattr(training, "make_loss", lambda *_: nan_for_row_5 if poisoned else plain)
    told: list[Any] = []
    events = EventWriter(1)
    monkeypatch.setattr(events, "emit", lambda kind, **members: told.append({"type": kind, **members}))
    folder = CheckpointFolder(workdir / "checkpoints", 2, "x")
    folder.open(lambda _: None)
    model = load_model(abstract_model(config, False), WeightFiles(model_folder, config), "float32", None)
    run = training.Run(spec, config, rows, Plan(spec.training, rows), None, folder, events, lambda: False)
    return model, told, lambda: run.train(model, None)


def test_logits_in_pieces_train_the_same_model(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"training.max_steps": 4}
    whole, told, train = _run(workspace, monkeypatch, "whole", settings, poisoned=False)
    train()
    monkeypatch.undo()
    monkeypatch.setattr(training, "tokens_per_chunk", lambda rows, tokens, vocabulary: 5)
    pieces, other, train = _run(workspace, monkeypatch, "pieces", settings, poisoned=False)
    train()
    losses = [[event["loss"] for event in events if event["type"] == "step"] for events in (told, other)]
    assert losses[1] == pytest.approx(losses[0], abs=3e-6)
    heads = [np.asarray(model.embedder.input_embedding[...]) for model in (whole, pieces)]
    assert np.abs(heads[1] - heads[0]).max() < 1e-5


def test_a_step_that_is_not_finite_is_skipped_and_the_run_goes_on(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"training.on_nonfinite": "skip", "training.gradient_accumulation_steps": 2}
    model, told, train = _run(workspace, monkeypatch, "skip", settings, poisoned=True)
    assert train() == 10
    rows = [event for event in told if event["type"] == "step"]
    broken = [row["step"] for row in rows if not np.isfinite(row["loss"])]
    assert broken == [event["step"] for event in rows if not np.isfinite(event["grad_norm"])]
    # Row 5 comes once in each epoch of three steps.
    assert 3 <= len(broken) <= 4
    assert len([event for event in told if event["type"] == "warning"]) == len(broken)
    assert np.isfinite(np.asarray(model.embedder.input_embedding[...])).all()


def test_a_step_that_is_not_finite_stops_the_run_before_anything_is_saved(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"training.on_nonfinite": "stop", "output.checkpoint_every": 1}
    model, told, train = _run(workspace, monkeypatch, "stop", settings, poisoned=True)
    with pytest.raises(RunnerError, match="Its rows: ") as caught:
        train()
    assert caught.value.code == "nonfinite"
    last = [event for event in told if event["type"] == "step"][-1]
    saved = [event["step"] for event in told if event["type"] == "checkpoint"]
    assert saved == list(range(1, last["step"]))
    assert np.isfinite(np.asarray(model.embedder.input_embedding[...])).all()
