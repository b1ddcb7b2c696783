"""Hugging Face's tensors <-> the arrays of google-tunix's model, by a mapping of our own: google-tunix's loads Gemma 1
with arrays missing. Whatever is not filled is an error."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from runner.failure import RunnerError
from runner.model_config import GemmaConfig
from runner.safetensors_file import DTYPES, SafetensorsFile, TensorInfo

Path_ = tuple[str | int, ...]  # of a leaf in the model
INDEX = "model.safetensors.index.json"
_SAMPLE = 4096  # bytes


@dataclasses.dataclass(frozen=True)
class Part:
    """Where one of Hugging Face's tensors lies in a leaf of the model."""

    name: str  # "model.layers.0.self_attn.q_proj.weight"
    leaf: Path_
    kind: str  # same, matrix, heads, output
    index: int | None = None  # of a stacked leaf
    heads: int = 0

    def to_leaf(self, tensor: np.ndarray) -> np.ndarray:
        if self.kind == "matrix":  # [out, in] -> [in, out]
            return tensor.T
        if self.kind == "heads":  # [heads * head_dim, in] -> [heads, in, head_dim]
            return tensor.reshape(self.heads, -1, tensor.shape[1]).transpose(0, 2, 1)
        if self.kind == "output":  # [out, heads * head_dim] -> [heads, head_dim, out]
            return tensor.T.reshape(self.heads, -1, tensor.shape[0])
        return tensor

    def from_leaf(self, leaf: np.ndarray) -> np.ndarray:
        value = leaf if self.index is None else leaf[self.index]
        if self.kind == "matrix":
            return value.T
        if self.kind == "heads":
            return value.transpose(0, 2, 1).reshape(-1, value.shape[1])
        if self.kind == "output":
            return value.reshape(-1, value.shape[2]).T
        return value

    def shape(self, config: GemmaConfig) -> tuple[int, ...]:
        """In Hugging Face's file."""
        width, wide, span = config.hidden_size, config.intermediate_size, self.heads * config.head_dim
        if self.kind == "heads":
            return (span, width)
        if self.kind == "output":
            return (width, span)
        if self.kind == "matrix":
            return (width, wide) if "down_proj" in self.name else (wide, width)
        if self.name == "model.embed_tokens.weight":
            return (config.vocab_size, width)
        return (config.head_dim,) if self.name.endswith(("q_norm.weight", "k_norm.weight")) else (width,)


def parts(config: GemmaConfig) -> list[Part]:
    """Every tensor of the text model, in the order in which the native engine writes them."""
    heads, kv_heads = config.num_heads, config.num_kv_heads
    result = [Part("model.embed_tokens.weight", ("embedder", "input_embedding"), "same")]
    for i in range(config.num_layers):
        name, attention = f"model.layers.{i}.", ("layers", i, "attn")

        def norm(hf: str, *leaf: str, at: int = i) -> Part:
            return Part(f"model.layers.{at}.{hf}.weight", ("layers", at, *leaf, "scale"), "same")

        projections: list[tuple[str, str, int | None, int]]
        if config.fused_qkv:
            projections = [(f"{part}_proj", "qkv_einsum", at, heads) for at, part in enumerate("qkv")]
        else:
            projections = [("q_proj", "q_einsum", None, heads)]
            projections += [(f"{part}_proj", "kv_einsum", at, kv_heads) for at, part in enumerate("kv")]
        for hf, leaf, at, count in projections:
            result.append(Part(f"{name}self_attn.{hf}.weight", (*attention, leaf, "w"), "heads", at, count))
        result.append(
            Part(f"{name}self_attn.o_proj.weight", (*attention, "attn_vec_einsum", "w"), "output", None, heads)
        )
        if config.family == 3:
            result += [norm("self_attn.q_norm", "attn", "_query_norm"), norm("self_attn.k_norm", "attn", "_key_norm")]
        for hf in ("gate_proj", "up_proj", "down_proj"):
            result.append(Part(f"{name}mlp.{hf}.weight", ("layers", i, "mlp", hf, "kernel"), "matrix"))
        result.append(norm("input_layernorm", "pre_attention_norm"))
        if config.family == 1:
            result.append(norm("post_attention_layernorm", "pre_ffw_norm"))
        else:
            after = "post_attn_norm" if config.family == 2 else "post_attention_norm"
            result.append(norm("post_attention_layernorm", after))
            result.append(norm("pre_feedforward_layernorm", "pre_ffw_norm"))
            result.append(norm("post_feedforward_layernorm", "post_ffw_norm"))
    result.append(Part("model.norm.weight", ("final_norm", "scale"), "same"))
    return result


def _is_carried(name: str) -> bool:
    """Tensors of an image-text model that are not trained: they go into the result as they are."""
    return name.removeprefix("model.").startswith(("vision_tower.", "multi_modal_projector."))


class WeightFiles:
    """The safetensors files of a model folder, each text tensor checked by name and shape."""

    def __init__(self, folder: Path, config: GemmaConfig) -> None:
        self._config = config
        self._found: dict[str, tuple[SafetensorsFile, TensorInfo]] = {}
        for path in _files_of(folder):
            file = SafetensorsFile(path)
            for info in file.tensors.values():
                if info.name in self._found:
                    raise RunnerError("model_invalid", f"{path}: {info.name} stands in another file too")
                self._found[info.name] = (file, info)
        self.parts = parts(config)
        self._names: dict[str, str] = {}
        missing = []
        for part in self.parts:
            name = next((n for n in self._spellings(part.name) if n in self._found), None)
            if name is None:
                missing.append(part.name)
                continue
            shape = self._found[name][1].shape
            if shape != part.shape(config):
                raise RunnerError(
                    "model_invalid", f"{folder}: {name} is {list(shape)}, expected {list(part.shape(config))}"
                )
            self._names[part.name] = name
        if missing:
            raise RunnerError(
                "model_invalid", f"{folder}: tensors are missing: {', '.join(missing[:5])} ({len(missing)} in all)"
            )
        self._check_others(folder)

    def _spellings(self, name: str) -> list[str]:
        if not self._config.image_text:
            return [name]
        return [f"language_model.{name}", f"model.language_model.{name.removeprefix('model.')}"]

    def _check_others(self, folder: Path) -> None:
        used = set(self._names.values())
        self._carried: list[str] = []
        for name in self._found:
            if name in used:
                continue
            if self._config.image_text and _is_carried(name):
                self._carried.append(name)
            elif name.endswith("lm_head.weight"):
                head, embedding = self._array(name), self.tensor(self.parts[0])
                if head.dtype != embedding.dtype or head.tobytes() != embedding.tobytes():
                    raise RunnerError(
                        "unsupported", f"{folder}: {name} is not the embedding: google-tunix ties the head to it"
                    )
            else:
                raise RunnerError("unsupported", f"{folder}: {name}: google-tunix has no place for it")

    def _array(self, name: str) -> np.ndarray:
        file, info = self._found[name]
        return file.array(info)

    def name_in_files(self, name: str) -> str:
        return self._names[name]

    def tensor(self, part: Part) -> np.ndarray:
        return self._array(self._names[part.name])

    def carried(self) -> Iterator[tuple[SafetensorsFile, TensorInfo]]:
        for name in self._carried:
            yield self._found[name]

    @property
    def dtype(self) -> str:
        """The number format of most of the text model's numbers: "F32", "BF16" or "F16"."""
        counts = dict.fromkeys(DTYPES, 0)
        for part in self.parts:
            info = self._found[self._names[part.name]][1]
            if info.dtype in counts:
                counts[info.dtype] += (info.end - info.begin) // DTYPES[info.dtype].itemsize
        return max(counts, key=lambda name: counts[name])

    def fingerprint(self) -> str:
        """Of names, dtypes, shapes and a sample of each tensor's bytes: tells another model of the same shape, without
        reading gigabytes."""
        digest = hashlib.sha256()
        for name in sorted(self._found):
            file, info = self._found[name]
            data = file.bytes(info)
            middle = len(data) // 2
            digest.update(f"{name} {info.dtype} {info.shape}\n".encode())
            digest.update(data[:_SAMPLE])
            digest.update(data[middle : middle + _SAMPLE])
        return digest.hexdigest()


def _files_of(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / INDEX
    if single.exists():
        return [single]
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except FileNotFoundError as error:
        raise RunnerError("model_invalid", f"{folder}: neither model.safetensors nor {INDEX} is there") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise RunnerError("model_invalid", f"{index}: cannot be read: {error}") from error
    for name in names:
        if "/" in name or not (folder / name).exists():
            raise RunnerError("model_invalid", f"{index}: {name} is not in the folder")
    return [folder / name for name in names]


def load_model(model: nnx.Module, files: WeightFiles, dtype: Any, mesh: jax.sharding.Mesh | None) -> nnx.Module:
    """The abstract `model` with arrays of `dtype`, laid out over the mesh as google-tunix says."""
    by_leaf: dict[Path_, list[Part]] = {}
    for part in files.parts:
        by_leaf.setdefault(part.leaf, []).append(part)
    graph, state = nnx.split(model)
    leaves = dict(nnx.to_flat_state(state))
    shardings = dict(nnx.to_flat_state(nnx.get_named_sharding(state, mesh))) if mesh is not None else {}
    filled = {}
    for path, leaf in leaves.items():
        if path not in by_leaf:
            raise RunnerError("internal", f"google-tunix's model has {path}, for which there is no tensor")
        value = _leaf_value(by_leaf.pop(path), files).astype(dtype)
        if value.shape != leaf.shape:
            raise RunnerError("internal", f"{path}: {value.shape}, and google-tunix's model has {leaf.shape}")
        sharding = shardings[path].get_raw_value() if path in shardings else jax.devices()[0]
        filled[path] = leaf.replace(jax.device_put(value, sharding))
    if by_leaf:
        raise RunnerError("internal", f"google-tunix's model has no {next(iter(by_leaf))}")
    loaded = nnx.merge(graph, nnx.from_flat_state(filled))
    empty = [str(p) for p, x in jax.tree_util.tree_leaves_with_path(nnx.state(loaded)) if not isinstance(x, jax.Array)]
    if empty:
        raise RunnerError("internal", f"not filled: {', '.join(empty)}")
    return loaded


def _leaf_value(own: list[Part], files: WeightFiles) -> np.ndarray:
    if own[0].index is None:
        return own[0].to_leaf(files.tensor(own[0]))
    ordered = sorted(own, key=lambda part: part.index or 0)
    return np.stack([part.to_leaf(files.tensor(part)) for part in ordered])
