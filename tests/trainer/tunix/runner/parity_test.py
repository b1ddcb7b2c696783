"""The same configuration, trained by the native engine and by google-tunix: ten steps in fp32 agree.

What goes in is what gemma-sft's client uploads and submits. The bars are those of the project: losses within 1e-5,
weights within 1e-4; they are looked at for every tensor and every step, and the rest of the metrics for equality.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workspace import Workspace, digests, metrics, tensors

LOSS_BAR = 1e-5
WEIGHT_BAR = 1e-4
RANDOM_CASES = int(os.environ.get("RANDOM_CASES", "2"))
FIRST_SEED = int(os.environ.get("FIRST_SEED", "1"))
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = {"lora.rank": 4, "lora.alpha": 8.0}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "gemma-1": (1, {}),
    "gemma-2": (2, {}),
    "gemma-3": (3, {}),
    # 22 rows by 4 are 6 micro-batches, the last of 2 rows; by 4 they are 2 steps an epoch, the last of 2 micro-batches.
    "accumulation": (1, {"training.gradient_accumulation_steps": 4, "training.lr_scheduler": "linear"}),
    "batch-tokens": (
        1,
        {
            "training.batch_tokens": 160,
            "training.batch_size": None,
            "training.packing": False,
            "training.lr_scheduler": "constant",
            "training.min_lr_ratio": None,
        },
    ),
    # Clipping of every step, other betas, a share of an epoch instead of a number of steps, the file's order.
    "settings": (
        1,
        {
            "training.max_steps": None,
            "training.num_epochs": 1.5,
            "training.max_grad_norm": 0.1,
            "training.adam_beta1": 0.8,
            "training.adam_beta2": 0.95,
            "training.adam_epsilon": 1e-5,
            "training.shuffle": False,
            "training.activation_checkpointing": True,
            "training.warmup_steps": None,
            "training.warmup_ratio": 0.3,
        },
    ),
    "gemma-1-lora": (1, LORA),
    "gemma-2-lora": (2, LORA | {"lora.target_modules": ["q_proj", "v_proj", "*.2.mlp.down_proj"]}),
    "gemma-3-lora": (3, LORA | {"lora.rslora": True, "training.seed": 7, "training.gradient_accumulation_steps": 2}),
}


def _weights(folder: Path) -> dict[str, np.ndarray]:
    adapter = folder / "adapter_model.safetensors"
    return tensors(adapter if adapter.exists() else folder / "model.safetensors")


@pytest.mark.parametrize("name", CASES)
def test_both_engines_train_alike(workspace: Workspace, name: str) -> None:
    family, settings = CASES[name]
    model = workspace.model(family)
    compare(workspace, workspace.config(name, model, settings), model, least_move=20 * WEIGHT_BAR)


@pytest.mark.parametrize("name", ["first-token", "none"])
def test_the_row_of_the_padding_token_learns_alike_whichever_it_is(workspace: Workspace, name: str) -> None:
    model = workspace.folder / f"pad-{name}"
    shutil.copytree(workspace.model(1), model)
    config = json.loads((model / "config.json").read_text())
    config["pad_token_id"] = config["bos_token_id"] if name == "first-token" else None
    (model / "config.json").write_text(json.dumps(config))
    compare(workspace, workspace.config(f"pad-{name}", model, {}), model, least_move=20 * WEIGHT_BAR)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + RANDOM_CASES))
def test_both_engines_train_alike_whatever_the_model_and_the_settings(workspace: Workspace, seed: int) -> None:
    """RANDOM_CASES and FIRST_SEED in the environment ask for more, and others."""
    chance = random.Random(seed)  # noqa: S311
    model = _random_model(workspace, chance, seed)
    compare(workspace, workspace.config(f"random-{seed}", model, _random_settings(chance)), model, least_move=0)


def _random_model(workspace: Workspace, chance: random.Random, seed: int) -> Path:
    family = chance.choice([1, 2, 3])
    config = json.loads((workspace.model(family) / "config.json").read_text())
    for key in ("layer_types", "rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq"):
        config.pop(key, None)
    heads, head_dim, width = chance.choice([2, 4]), chance.choice([8, 16, 24]), chance.choice([48, 64])
    config |= {
        "num_attention_heads": heads,
        "num_key_value_heads": chance.choice([count for count in (1, 2, 4) if count <= heads]),
        "head_dim": head_dim,
        "num_hidden_layers": chance.choice([1, 3, 7]),
        "hidden_size": width,
        "intermediate_size": chance.choice([80, 128]),
    }
    if family > 1:
        config |= {"query_pre_attn_scalar": head_dim, "sliding_window": chance.choice([4, 9, 64])}
    if family == 2:
        config |= {"attn_logit_softcapping": chance.choice([None, 5.0, 50.0])}
    if family > 1:
        config |= {"final_logit_softcapping": chance.choice([None, 5.0, 30.0])}
    if family == 3:
        if chance.random() < 0.4:
            config["query_pre_attn_scalar"] = width // heads
        config |= {"rope_theta": chance.choice([1e6, 2e4]), "rope_local_base_freq": chance.choice([1e4, 100.0])}
        if chance.random() < 0.5:
            config["rope_scaling"] = {"rope_type": "linear", "factor": chance.choice([2.0, 8.0])}
    name = f"random-{seed}-model"
    (workspace.folder / f"{name}.json").write_text(json.dumps(config))
    words = ["--config", f"{name}.json", "--tokenizer", "tok", "--output", name, "--seed", str(seed)]
    workspace.native("model", "init", *words, "--dtype", chance.choice(["fp32", "bf16"]))
    return workspace.folder / name


def _random_settings(chance: random.Random) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "training.seed": chance.randrange(2**40),
        "training.learning_rate": chance.choice([1e-3, 3e-4]),
        "training.weight_decay": chance.choice([0, 0.1]),
        "training.max_grad_norm": chance.choice([0, 0.3, 1.0]),
        "training.lr_scheduler": chance.choice(["linear", "cosine"]),
        "training.gradient_accumulation_steps": chance.choice([1, 2, 3, 5]),
        "training.packing": chance.random() < 0.5,
        "training.batch_size": chance.choice([1, 3, 4, 8]),
    }
    if chance.random() < 0.3:
        settings |= {"training.batch_tokens": chance.choice([100, 200, 300]), "training.batch_size": None}
    if chance.random() < 0.5:
        settings |= {"lora.rank": chance.choice([1, 4, 6]), "lora.alpha": chance.choice([8.0, 16.5])}
        settings |= {"lora.rslora": chance.random() < 0.3}
        if chance.random() < 0.6:
            settings["lora.target_modules"] = chance.sample(PROJECTIONS, chance.randint(1, 5))
    return settings


def compare(workspace: Workspace, config: Path, model: Path, least_move: float) -> None:
    native = workspace.train_native(config)
    workdir = workspace.job(config, model)
    result = workspace.train_tunix(workdir)

    expected, found = metrics(native), result.of("step")
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for key in ("tokens", "target_tokens", "epoch", "learning_rate"):
        assert [row[key] for row in found] == pytest.approx([row[key] for row in expected], rel=1e-12, abs=0), key
    losses = max(abs(a["loss"] - b["loss"]) for a, b in zip(found, expected, strict=True))
    norms = max(abs(a["grad_norm"] / b["grad_norm"] - 1) for a, b in zip(found, expected, strict=True))
    _same_files(workdir / "output" / "final_model", native / "final_model")
    ours, theirs = _weights(workdir / "output" / "final_model"), _weights(native / "final_model")
    assert ours.keys() == theirs.keys()
    weights = max(float(np.abs(ours[key] - theirs[key]).max()) for key in theirs)
    moved = max(float(np.abs(theirs[key] - value).max()) for key, value in _start(model, theirs).items())
    print(
        f"{config.stem}: {len(found)} steps, losses {losses:.1e}, norms {norms:.1e} relative, "
        f"weights {weights:.1e} of {moved:.1e}"
    )
    assert losses <= LOSS_BAR
    assert norms <= 1e-4
    assert weights <= WEIGHT_BAR
    assert moved > least_move, "the run must move the weights by much more than the bar"


def _same_files(ours: Path, theirs: Path) -> None:
    """The same names, and the same bytes but for the weights and the name of an adapter's base."""
    first, second = digests(ours), digests(theirs)
    assert first.keys() == second.keys()
    if "adapter_config.json" in first:
        settings = [json.loads((folder / "adapter_config.json").read_text()) for folder in (ours, theirs)]
        for values in settings:
            assert values.pop("base_model_name_or_path")
        assert settings[0] == settings[1]
    different = {name for name in first if first[name] != second[name]}
    assert different <= {"model.safetensors", "adapter_model.safetensors", "adapter_config.json"}


def _start(model: Path, trained: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The trained weights before training: the base model's, or B of an adapter, which starts at zero."""
    base = tensors(model / "model.safetensors")
    return {key: base.get(key, np.zeros_like(value)) for key, value in trained.items() if "lora_A" not in key}
