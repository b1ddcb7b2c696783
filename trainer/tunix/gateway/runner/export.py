"""The trained model -> a Hugging Face folder, as the native engine writes it: final_model/ with all weights, or a PEFT
folder for LoRA. It appears by rename, when every file in it is on the disk."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flax import nnx

from runner import durable
from runner.failure import RunnerError
from runner.job_spec import JobSpec, Lora
from runner.lora import adapter_tensors, scale_of
from runner.model_config import GemmaConfig
from runner.safetensors_file import DTYPES, TensorSource, array_source, write_safetensors
from runner.weights import INDEX, Part, WeightFiles

MOST_SHARD_BYTES = 5_000_000_000
_HEADER_BYTES = 256  # of a tensor, on top of its name
_TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)
_FILE_DTYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}
_CONFIG_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def export_folder(
    spec: JobSpec, config: GemmaConfig, files: WeightFiles, model: nnx.Module, output: Path, merged: bool
) -> None:
    """Writes output/final_model, and output/merged_model when LoRA's result is wanted `merged` as well."""
    lora = spec.training.lora
    if lora is None:
        _publish(output / "final_model", lambda to: _write_model(spec, config, files, model, to))
        return
    _publish(output / "final_model", lambda to: _write_adapter(spec, config, lora, model, to))
    if merged:
        _publish(output / "merged_model", lambda to: _write_model(spec, config, files, model, to))


def describe(output: Path) -> list[dict[str, object]]:
    """Every published file below `output`, for the event."""
    paths = sorted(path for path in output.rglob("*") if path.is_file())
    return [
        {"path": str(path.relative_to(output)), "size": path.stat().st_size, "sha256": durable.sha256_file(path)}
        for path in paths
    ]


def _publish(destination: Path, write: Callable[[Path], None]) -> None:
    output = destination.parent
    output.mkdir(parents=True, exist_ok=True)
    partial, old = output / f".{destination.name}.partial", output / f".{destination.name}.old"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    partial.mkdir()
    write(partial)
    _write_digests(partial)
    durable.sync(partial)
    if destination.exists():
        destination.rename(old)
    partial.rename(destination)
    durable.sync(output)
    shutil.rmtree(old, ignore_errors=True)


def _write_digests(folder: Path) -> None:
    """What `gemma-sft verify` and `sha256sum -c SHA256SUMS` check."""
    names = sorted(path.name for path in folder.iterdir())
    lines = [f"{durable.sha256_file(folder / name)}  {name}\n" for name in names]
    durable.write_new(folder / "SHA256SUMS", "".join(lines).encode())


# ---- all weights -----------------------------------------------------------------------------------------------------


def _converted(name: str, value: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        result = value.astype(DTYPES[dtype])
    if dtype == "F16" and not np.isfinite(result).all() and np.isfinite(value).all():
        raise RunnerError(
            "unsupported", f"output.model_dtype: {name} has a value beyond the range of fp16; write bf16 or fp32"
        )
    return result


def _write_model(spec: JobSpec, config: GemmaConfig, files: WeightFiles, model: nnx.Module, to: Path) -> None:
    leaves = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    dtype = _FILE_DTYPES[spec.output.model_dtype] if spec.output.model_dtype else files.dtype
    deltas = _deltas(model, config, spec.training.lora) if spec.training.lora else {}

    def read(part: Part) -> np.ndarray:
        value = part.from_leaf(np.asarray(leaves[part.leaf][...]))
        delta = deltas.get(part.name)
        if delta is not None:
            value = value.astype(np.float32) + delta()
        return _converted(part.name, value, dtype)

    tensors = [
        array_source(files.name_in_files(part.name), dtype, part.shape(config), lambda part=part: read(part))  # type: ignore[misc]
        for part in files.parts
    ]
    for file, info in files.carried():
        data = file.bytes(info)
        tensors.append(TensorSource(info.name, info.dtype, info.shape, len(data), lambda data=data: data))  # type: ignore[misc]
    _write_weight_files(to, tensors)
    base = spec.model.path
    text = (base / "config.json").read_text(encoding="utf-8")
    durable.write_new(to / "config.json", (text if dtype == files.dtype else _with_dtype(text, dtype)).encode())
    generation = base / "generation_config.json"
    if generation.exists():
        durable.write_new(to / "generation_config.json", generation.read_bytes())
    for name in _TOKENIZER_FILES:
        if (base / name).exists():
            durable.write_new(to / name, (base / name).read_bytes())


def _with_dtype(text: str, dtype: str) -> str:
    """The other bytes of config.json stay as they are."""
    return re.sub(r'("(?:torch_)?dtype"\s*:\s*)"[^"]*"', rf'\1"{_CONFIG_DTYPES[dtype]}"', text)


def _write_weight_files(to: Path, tensors: list[TensorSource], most_bytes: int = MOST_SHARD_BYTES) -> None:
    shards: list[list[TensorSource]] = [[]]
    in_shard = 0
    for tensor in tensors:
        room = tensor.size + len(tensor.name.encode()) + _HEADER_BYTES
        if in_shard > 0 and in_shard + room > most_bytes:
            shards.append([])
            in_shard = 0
        shards[-1].append(tensor)
        in_shard += room
    if len(shards) == 1:
        write_safetensors(to / "model.safetensors", shards[0])
        return
    places = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(to / name, shard)
        places.update({tensor.name: name for tensor in shard})
    index = {
        "metadata": {"total_size": sum(tensor.size for tensor in tensors)},
        "weight_map": dict(sorted(places.items())),
    }
    durable.write_new(to / INDEX, (json.dumps(index, indent=2) + "\n").encode())


def _deltas(model: nnx.Module, config: GemmaConfig, lora: Lora) -> dict[str, Callable[[], np.ndarray]]:
    scale = np.float32(scale_of(lora))
    return {
        adapter.part.name: (lambda a=a, b=b: (b @ a) * scale) for adapter, a, b in adapter_tensors(model, config, lora)
    }


# ---- adapters --------------------------------------------------------------------------------------------------------


def _path_in_file(module: str, config: GemmaConfig) -> str:
    return f"model.language_model.{module.removeprefix('model.')}" if config.image_text else module


def _targets(modules: list[str], config: GemmaConfig) -> list[str]:
    """Short names where every layer of that name is adapted, else whole paths; always these for image-text models,
    whose vision tower has layers of the same names."""
    counts: dict[str, int] = {}
    for module in modules:
        short = module.rpartition(".")[2]
        counts[short] = counts.get(short, 0) + 1
    targets = set()
    for module in modules:
        short = module.rpartition(".")[2]
        everywhere = counts[short] == config.num_layers and not config.image_text
        targets.add(short if everywhere else _path_in_file(module, config))
    return sorted(targets)


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) and abs(value) < 1e15 else value


def _write_adapter(spec: JobSpec, config: GemmaConfig, lora: Lora, model: nnx.Module, to: Path) -> None:
    adapters = adapter_tensors(model, config, lora)
    tensors = []
    for adapter, a, b in adapters:
        prefix = f"base_model.model.{_path_in_file(adapter.module, config)}"
        for name, value in ((f"{prefix}.lora_A.weight", a), (f"{prefix}.lora_B.weight", b)):
            tensors.append(array_source(name, "F32", value.shape, lambda value=value: value))  # type: ignore[misc]
    write_safetensors(to / "adapter_model.safetensors", tensors)
    settings: dict[str, object] = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": spec.model.base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": _whole(lora.alpha),
        "lora_dropout": _whole(lora.dropout),
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.rank,
        "rank_pattern": {},
        "revision": spec.model.revision,
        "target_modules": _targets([adapter.module for adapter, _, _ in adapters], config),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": lora.rslora,
    }
    durable.write_new(to / "adapter_config.json", (json.dumps(settings, indent=2) + "\n").encode())
