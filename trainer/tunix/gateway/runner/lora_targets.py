"""Which linear layers lora.target_modules means, by the native engine's rule (model/lora.h). No JAX here: the gateway
asks before it takes a job."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from runner.failure import RunnerError

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def linear_layers(layers: int) -> list[str]:
    """Module paths of a model with so many blocks, in their order."""
    return [
        f"model.layers.{block}.{'self_attn' if place < 4 else 'mlp'}.{name}"
        for block in range(layers)
        for place, name in enumerate(LINEAR_LAYERS)
    ]


def matches_target(path: str, pattern: str) -> bool:
    """A whole path, its last names, or a glob of * and ? over the whole path."""
    if path == pattern or (pattern and path.endswith("." + pattern)):
        return True
    glob = pattern.replace("[", "[[]")  # fnmatch has classes, the native engine has not
    return fnmatch.fnmatchcase(path, glob)


def is_target(path: str, patterns: Iterable[str]) -> bool:
    return any(matches_target(path, pattern) for pattern in patterns)


def require_targets(patterns: list[str], layers: int) -> None:
    """Raises RunnerError unless there are patterns and each of them means a layer."""
    if not patterns:
        raise RunnerError("invalid_spec", "lora.target_modules: names no layer")
    modules = linear_layers(layers)
    for pattern in patterns:
        if not any(matches_target(module, pattern) for module in modules):
            raise RunnerError(
                "invalid_spec",
                f'lora.target_modules: "{pattern}" matches no linear layer; the layers are '
                f"{', '.join(LINEAR_LAYERS)}, for example {modules[0]}",
            )
