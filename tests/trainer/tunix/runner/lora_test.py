"""LoRA's parts: which layers a pattern means, and that the start is that of the native engine bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from runner.failure import RunnerError
from runner.job_spec import Lora
from runner.lora import find_adapters, first_values, scale_of
from runner.lora_targets import linear_layers, matches_target
from runner.model_config import load_gemma_config
from runner.weights import parts

from workspace import Workspace, tensors


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("q_proj", True),
        ("self_attn.q_proj", True),
        ("model.layers.3.self_attn.q_proj", True),
        ("model.layers.*.q_proj", True),
        ("*.?.self_attn.?_proj", True),
        ("_proj", False),
        ("*.3", False),
        ("model.layers.[3].self_attn.q_proj", False),
        ("", False),
    ],
)
def test_patterns_mean_what_they_mean_to_the_native_engine(pattern: str, meant: bool) -> None:
    assert matches_target("model.layers.3.self_attn.q_proj", pattern) is meant


def test_the_first_values_are_the_native_engines(workspace: Workspace) -> None:
    # One step at a rate of zero leaves an adapter as it started.
    for family, seed in ((1, 42), (3, 2**40 + 5)):
        model = workspace.model(family)
        settings = {"lora.rank": 5, "training.seed": seed, "training.max_steps": 1, "training.warmup_steps": 1}
        run = workspace.train_native(workspace.config(f"lora-start-{family}", model, settings))
        native = tensors(run / "final_model" / "adapter_model.safetensors")
        config = load_gemma_config(model)
        lora = Lora(5, 32.0, 0.0, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], False)
        values = first_values(find_adapters(config, lora), lora, seed)
        assert len(native) == 2 * len(values)
        for module, value in values.items():
            assert np.array_equal(native[f"base_model.model.{module}.lora_A.weight"], value), module


def test_the_layers_are_those_of_the_model(workspace: Workspace) -> None:
    for family in (1, 2, 3):
        config = load_gemma_config(workspace.model(family))
        parts_of_model = {part.name.removesuffix(".weight") for part in parts(config) if "_proj" in part.name}
        assert set(linear_layers(config.num_layers)) == parts_of_model


def test_scales() -> None:
    assert scale_of(Lora(16, 8.0, 0.0, [], False)) == 0.5
    assert scale_of(Lora(16, 8.0, 0.0, [], True)) == 2.0


def test_a_pattern_that_matches_nothing_is_named(workspace: Workspace) -> None:
    config = load_gemma_config(workspace.model(1))
    with pytest.raises(RunnerError, match='"query" matches no linear layer'):
        find_adapters(config, Lora(4, 8.0, 0.0, ["q_proj", "query"], False))
