"""LoRA as the native engine has it, inside google-tunix (qwix): the same layers, start and adapter files.

qwix gives a stacked array (k and v; q, k and v where there are as many of each) one A for all its parts. Here each part
has columns of its own in that A, and the blocks of B that would mix parts are held at zero by masking their gradients:
the parametrisation is exactly one A and one B per projection, as in PEFT.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import qwix
from flax import nnx

from runner.failure import RunnerError
from runner.job_spec import Lora
from runner.lora_targets import is_target, linear_layers, require_targets
from runner.model_config import GemmaConfig
from runner.weights import Part, Path_, parts


@dataclasses.dataclass(frozen=True)
class Adapter:
    """One adapted projection, and its columns in the A of its leaf."""

    part: Part
    module: str  # "model.layers.0.self_attn.q_proj"
    inputs: int
    outputs: int
    first: int  # of `rank` columns

    def a(self, leaf: np.ndarray, rank: int) -> np.ndarray:
        """[rank, inputs] from google-tunix's A."""
        return leaf.reshape(self.inputs, -1)[:, self.first : self.first + rank].T

    def b(self, leaf: np.ndarray, rank: int) -> np.ndarray:
        """[outputs, rank] from google-tunix's B."""
        rows = leaf[self.first : self.first + rank]
        return (rows if self.part.index is None else rows[:, self.part.index]).reshape(rank, -1).T


def scale_of(lora: Lora) -> float:
    return lora.alpha / (math.sqrt(lora.rank) if lora.rslora else lora.rank)


def find_adapters(config: GemmaConfig, lora: Lora) -> list[Adapter]:
    """The adapted projections in the native engine's order. Raises RunnerError for a pattern that matches nothing."""
    require_targets(lora.target_modules, config.num_layers)
    modules = {part.name.removesuffix(".weight"): part for part in parts(config)}
    taken: dict[Path_, int] = {}
    adapters = []
    for module in linear_layers(config.num_layers):
        if not is_target(module, lora.target_modules):
            continue
        part = modules[module]
        outputs, inputs = part.shape(config)
        adapters.append(Adapter(part, module, inputs, outputs, taken.get(part.leaf, 0)))
        taken[part.leaf] = taken.get(part.leaf, 0) + lora.rank
    return adapters


def first_values(adapters: list[Adapter], lora: Lora, seed: int) -> dict[str, np.ndarray]:
    """Each module's A at the start, bit for bit that of the native engine: uniform between -1 / sqrt(inputs) and
    1 / sqrt(inputs), from the generator of LibTorch's CPU (MT19937, 24 bits a number). B starts at zero."""
    generator = np.random.RandomState(seed & 0xFFFFFFFF)
    values = {}
    for adapter in adapters:
        count = lora.rank * adapter.inputs
        words = np.frombuffer(generator.bytes(4 * count), dtype="<u4")
        unit = (words & np.uint32((1 << 24) - 1)).astype(np.float32) * np.float32(2.0**-24)
        bound = 1.0 / math.sqrt(adapter.inputs)
        low, high = np.float32(-bound), np.float32(bound)
        # Multiplied and added with one rounding, as compilers do for processors that can.
        wide = unit.astype(np.float64) * np.float64(high - low) + np.float64(low)
        values[adapter.module] = wide.astype(np.float32).reshape(lora.rank, adapter.inputs)
    return values


def add_lora(model: nnx.Module, config: GemmaConfig, lora: Lora, seed: int, rows: int) -> nnx.Module:
    """`model` with adapters in fp32. `rows`: of the batch that qwix runs once, a multiple of what the mesh divides."""
    adapters = find_adapters(config, lora)
    groups: dict[Path_, list[Adapter]] = {}
    for adapter in adapters:
        groups.setdefault(adapter.part.leaf, []).append(adapter)
    rules = [
        qwix.LoraRule(
            module_path=re.escape("/".join(str(name) for name in leaf[:-1])),
            rank=lora.rank * len(group),
            alpha=scale_of(lora) * lora.rank * len(group),
        )
        for leaf, group in groups.items()
    ]
    sample = {
        "last_tokens": np.ones((rows, 1), np.int32),
        "positions": np.zeros((rows, 1), np.int32),
        "cache": None,
        "attention_mask": np.ones((rows, 1, 1), bool),
    }
    adapted = qwix.apply_lora_to_model(model, qwix.LoraProvider(rules), rngs=nnx.Rngs(params=0), **sample)
    start = first_values(adapters, lora, seed)
    leaves = dict(nnx.to_flat_state(nnx.state(adapted, nnx.LoRAParam)))
    if len(leaves) != 2 * len(groups):
        raise RunnerError("internal", f"qwix made {len(leaves)} LoRA arrays for {len(groups)} adapted ones")
    filled = {}
    for leaf, group in groups.items():
        a_path, b_path = _lora_paths(leaf)
        a, b = leaves[a_path], leaves[b_path]
        value = np.concatenate([start[adapter.module].T for adapter in group], axis=1).reshape(a.shape)
        filled[a_path] = a.replace(jax.device_put(value, a[...].sharding))
        filled[b_path] = b.replace(jax.device_put(np.zeros(b.shape, np.float32), b[...].sharding))
    nnx.update(adapted, nnx.from_flat_state(filled))
    return adapted


def _lora_paths(leaf: Path_) -> tuple[Path_, Path_]:
    return (*leaf[:-1], f"{leaf[-1]}_lora_a"), (*leaf[:-1], f"{leaf[-1]}_lora_b")


def gradient_mask(config: GemmaConfig, lora: Lora) -> Callable[[list[str], tuple[int, ...]], np.ndarray | None]:
    """For a parameter by its names and shape: where its gradient counts, or None: everywhere."""
    masked: dict[tuple[str, ...], list[Adapter]] = {}
    for adapter in find_adapters(config, lora):
        if adapter.part.index is not None:
            names = tuple(str(name) for name in _lora_paths(adapter.part.leaf)[1])
            masked.setdefault(names, []).append(adapter)

    def mask_of(names: list[str], shape: tuple[int, ...]) -> np.ndarray | None:
        group = masked.get(tuple(names))
        if group is None:
            return None
        mask = np.zeros(shape, np.float32)  # [columns, parts, heads, head_dim]
        for adapter in group:
            mask[adapter.first : adapter.first + lora.rank, adapter.part.index] = 1
        return mask

    return mask_of


def adapter_tensors(model: nnx.Module, config: GemmaConfig, lora: Lora) -> list[tuple[Adapter, np.ndarray, np.ndarray]]:
    """Every adapted projection with its A [rank, inputs] and B [outputs, rank], fp32 on the host."""
    leaves: dict[Any, Any] = dict(nnx.to_flat_state(nnx.state(model, nnx.LoRAParam)))
    result = []
    for adapter in find_adapters(config, lora):
        a_path, b_path = _lora_paths(adapter.part.leaf)
        a = adapter.a(np.asarray(leaves[a_path][...], np.float32), lora.rank)
        b = adapter.b(np.asarray(leaves[b_path][...], np.float32), lora.rank)
        result.append((adapter, np.ascontiguousarray(a), np.ascontiguousarray(b)))
    return result
