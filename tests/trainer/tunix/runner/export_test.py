"""Weights in and out: nothing is lost, nothing is left unfilled, and gemma-sft computes with the result what
google-tunix computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from runner import export
from runner.failure import RunnerError
from runner.gemma import abstract_model
from runner.job_spec import load_job_spec
from runner.model_config import GemmaConfig, load_gemma_config
from runner.safetensors_file import SafetensorsFile, TensorSource, array_source, write_safetensors
from runner.training import make_loss
from runner.weights import WeightFiles, load_model
from tunix.sft import utils as tunix_utils

from workspace import Workspace, digests, tensors

GOLDEN = Path(__file__).resolve().parents[3] / "golden"


def _load(folder: Path, dtype: str = "float32") -> tuple[GemmaConfig, WeightFiles, nnx.Module]:
    config = load_gemma_config(folder)
    files = WeightFiles(folder, config)
    return config, files, load_model(abstract_model(config, False), files, dtype, None)


def _export(workspace: Workspace, folder: Path, to: Path, dtype: str = "float32", **output: Any) -> None:
    """Loads and writes, without a step in between."""
    config, files, model = _load(folder, dtype)
    name = f"export-{len(list(workspace.folder.iterdir()))}"
    spec_config = workspace.config("export", workspace.model(1), {})
    workdir = workspace.job(spec_config, folder, name, **output)
    export.export_folder(load_job_spec(workdir / "job.json"), config, files, model, to, False)


def _many_heads(workspace: Workspace) -> Path:
    """As many key heads as query heads: google-tunix then keeps q, k and v in one array."""
    folder = workspace.folder / "many-heads"
    if not folder.exists():
        config = json.loads((workspace.model(3) / "config.json").read_text())
        config["num_key_value_heads"] = config["num_attention_heads"]
        (workspace.folder / "many-heads.json").write_text(json.dumps(config))
        words = ["--config", "many-heads.json", "--tokenizer", "tok", "--output", "many-heads", "--seed", "3"]
        workspace.native("model", "init", *words, "--dtype", "fp32")
    return folder


@pytest.mark.parametrize("family", [1, 2, 3])
@pytest.mark.parametrize(("files", "arrays"), [("fp32", "float32"), ("bf16", "float32"), ("bf16", "bfloat16")])
def test_loaded_and_written_is_the_same_byte_for_byte(
    workspace: Workspace, tmp_path: Path, family: int, files: str, arrays: str
) -> None:
    folder = workspace.model(family, files)
    _export(workspace, folder, tmp_path, arrays, output__model_dtype=None)
    assert digests(tmp_path / "final_model") == digests(folder)


def test_one_array_for_q_k_and_v_comes_apart_again(workspace: Workspace, tmp_path: Path) -> None:
    folder = _many_heads(workspace)
    _export(workspace, folder, tmp_path, output__model_dtype=None)
    assert digests(tmp_path / "final_model") == digests(folder)


def test_another_dtype_is_what_gemma_sft_writes(workspace: Workspace, tmp_path: Path) -> None:
    folder = workspace.model(2)
    _export(workspace, folder, tmp_path, output__model_dtype="bf16")
    words = ["--input", folder.name, "--output", "converted", "--format", "hf", "--dtype", "bf16"]
    workspace.native("export", *words)
    assert digests(tmp_path / "final_model") == digests(workspace.folder / "converted")
    sums = [folder / "SHA256SUMS" for folder in (tmp_path / "final_model", workspace.folder / "converted")]
    assert sums[0].read_bytes() == sums[1].read_bytes()
    workspace.native("verify", str(tmp_path / "final_model"))


def test_a_sharded_folder_is_read_and_written_in_shards(workspace: Workspace, tmp_path: Path) -> None:
    folder = workspace.model(1)
    sharded = tmp_path / "sharded"
    shutil.copytree(folder, sharded, ignore=lambda _, names: [n for n in names if n.endswith(".safetensors")])
    file = SafetensorsFile(folder / "model.safetensors")
    sources = [
        TensorSource(info.name, info.dtype, info.shape, info.end - info.begin, lambda info=info: file.bytes(info))
        for info in file.tensors.values()
    ]
    export._write_weight_files(sharded, sources, most_bytes=200_000)
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert index["metadata"]["total_size"] == sum(source.size for source in sources)
    workspace.native("export", "--input", str(sharded), "--output", "from-shards", "--format", "hf")
    _export(workspace, sharded, tmp_path, output__model_dtype=None)
    assert digests(tmp_path / "final_model") == digests(folder)


def test_the_vision_tower_of_an_image_text_model_is_carried_through(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "image-text"
    shutil.copytree(GOLDEN / "gemma-3-image-text" / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["layer_types"] = ["sliding_attention"] * 5 + ["full_attention"]  # google-tunix's pattern
    (folder / "config.json").write_text(json.dumps(config))
    _export(workspace, folder, tmp_path / "out", output__model_dtype=None)
    before, after = (
        tensors(folder / "model.safetensors"),
        tensors(tmp_path / "out" / "final_model" / "model.safetensors"),
    )
    assert before.keys() - after.keys() <= {"lm_head.weight", "language_model.lm_head.weight"}
    assert any("vision_tower" in name for name in after)
    for name, value in after.items():
        assert np.array_equal(value, before[name]), name


# ---- what the weights compute ----------------------------------------------------------------------------------------


def _batch(config: GemmaConfig) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(5)
    lengths = np.array([40, 33, 12])
    ids = chance.integers(3, config.vocab_size, (3, 40)).astype(np.int64)
    mask = (chance.random((3, 40)) < 0.6).astype(np.uint8)
    mask[:, 0] = 0
    for row, length in enumerate(lengths):
        ids[row, length:] = 0
        mask[row, length - 1], mask[row, length:] = 1, 0
    return {"input_ids": ids, "lengths": lengths, "loss_mask": mask}


def _case_for_gemma_sft(folder: Path, model_folder: Path) -> None:
    """What google-tunix computes with a folder, as a case of `gemma-sft selftest`."""
    jax.config.update("jax_default_matmul_precision", "highest")
    config, files, model = _load(model_folder)
    batch = _batch(config)
    ids, lengths = batch["input_ids"].astype(np.int32), batch["lengths"].astype(np.int32)
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    mask = tunix_utils.make_causal_attn_mask(positions < lengths[:, None])
    hidden = np.asarray(nnx.jit(lambda m: m(ids, positions, None, mask))(model))
    logits = hidden @ np.asarray(model.embedder.input_embedding[...]).T  # type: ignore[attr-defined]
    if config.logit_softcap:
        logits = np.tanh(logits / config.logit_softcap) * config.logit_softcap
    for row, length in enumerate(lengths):
        logits[row, length:] = 0
    targets = np.concatenate([ids[:, 1:], np.zeros((3, 1), np.int32)], axis=1)
    weights = np.concatenate([batch["loss_mask"][:, 1:], np.zeros((3, 1), np.uint8)], axis=1).astype(np.float32)
    loss = make_loss(config, "fp32", 1)
    value, gradients = nnx.jit(nnx.value_and_grad(loss))(model, ids, targets, weights, lengths, weights.sum())
    leaves = dict(nnx.to_flat_state(gradients))
    folder.mkdir()
    (folder / "model").symlink_to(model_folder.resolve(), target_is_directory=True)
    tolerances = {"logits_abs": 2e-5, "loss_abs": 1e-5, "grad_rel": 2e-5}
    (folder / "case.json").write_text(json.dumps({"name": folder.name, "tolerances": tolerances}))
    values = {**batch, "logits": logits, "loss": np.float32(value)}
    for part in files.parts:
        values[f"grad.{part.name}"] = part.from_leaf(np.asarray(leaves[part.leaf][...]))
    dtypes = {np.dtype(np.int64): "I64", np.dtype(np.uint8): "U8", np.dtype(np.float32): "F32"}
    sources = []
    for name, array in values.items():
        kept = np.ascontiguousarray(array)
        shape = () if name == "loss" else kept.shape
        sources.append(TensorSource(name, dtypes[kept.dtype], shape, kept.nbytes, lambda kept=kept: kept))
    write_safetensors(folder / "expected.safetensors", sources)


@pytest.mark.parametrize("family", [1, 2, 3])
def test_gemma_sft_computes_the_same_logits_loss_and_gradients_with_the_exported_model(
    workspace: Workspace, tmp_path: Path, family: int
) -> None:
    model = workspace.model(family)
    config = workspace.config(f"logits-{family}", model, {"training.max_steps": 5, "training.learning_rate": 1e-2})
    workdir = workspace.job(config, model)
    workspace.train_tunix(workdir)
    exported = workdir / "output" / "final_model"
    assert digests(exported) != digests(model)
    _case_for_gemma_sft(tmp_path / "case", exported)
    report = json.loads(workspace.native("selftest", "--case", str(tmp_path / "case"), "--device", "cpu", "--json"))
    print({key: report[key] for key in report if key not in ("gradients",)})
    assert report["ok"] is True


def test_a_merged_adapter_is_what_gemma_sft_merges(workspace: Workspace) -> None:
    model = workspace.model(3)
    settings = {"lora.rank": 4, "lora.alpha": 8.0, "training.max_steps": 4}
    workdir = workspace.job(workspace.config("merged", model, settings), model)
    workspace.train_tunix(workdir, "--merged")
    output = workdir / "output"
    assert sorted(entry.name for entry in (output / "final_model").iterdir()) == [
        "SHA256SUMS",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    adapter = str(output / "final_model")
    workspace.native("export", "--input", adapter, "--base", model.name, "--format", "merged", "--output", "by-native")
    ours, theirs = (
        tensors(output / "merged_model" / "model.safetensors"),
        tensors(workspace.folder / "by-native" / "model.safetensors"),
    )
    assert ours.keys() == theirs.keys()
    base = tensors(model / "model.safetensors")
    assert max(np.abs(ours[name] - theirs[name]).max() for name in ours) < 1e-7
    assert max(np.abs(ours[name] - base[name]).max() for name in ours) > 1e-4


def test_a_fingerprint_tells_another_model_of_the_same_shape(workspace: Workspace, tmp_path: Path) -> None:
    folder, other = workspace.model(1), tmp_path / "other"
    shutil.copytree(folder, other)
    config = load_gemma_config(folder)
    first = WeightFiles(folder, config).fingerprint()
    assert WeightFiles(other, config).fingerprint() == first
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-4] ^= 1  # in the last tensor, a norm
    (other / "model.safetensors").write_bytes(bytes(data))
    assert WeightFiles(other, config).fingerprint() != first


# ---- what is no model of ours ----------------------------------------------------------------------------------------


def _without(folder: Path, to: Path, name: str) -> Path:
    """The folder without a tensor."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors"))
    sources = [array_source(n, "F32", v.shape, lambda v=v: v) for n, v in tensors(folder / "model.safetensors").items()]
    write_safetensors(to / "model.safetensors", [source for source in sources if source.name != name])
    return to


@pytest.mark.parametrize("family", [1, 2, 3])
def test_a_missing_tensor_is_named(workspace: Workspace, tmp_path: Path, family: int) -> None:
    name = "model.layers.1.post_attention_layernorm.weight"  # the one that google-tunix leaves empty in Gemma 1
    folder = _without(workspace.model(family), tmp_path / "model", name)
    with pytest.raises(RunnerError, match=name) as caught:
        _load(folder)
    assert caught.value.code == "model_invalid"


@pytest.mark.parametrize(
    ("name", "named"),
    [("lm_head.weight", "ties the head"), ("model.layers.0.self_attn.q_proj.bias", "no place for it")],
)
def test_an_untied_head_and_biases_are_refused(workspace: Workspace, tmp_path: Path, name: str, named: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(workspace.model(1), folder)
    values = tensors(folder / "model.safetensors")
    values[name] = np.ones_like(values["model.embed_tokens.weight"] if "head" in name else values["model.norm.weight"])
    (folder / "model.safetensors").unlink()
    sources = [array_source(n, "F32", v.shape, lambda v=v: v) for n, v in values.items()]
    write_safetensors(folder / "model.safetensors", sources)
    with pytest.raises(RunnerError, match=named):
        _load(folder)


def test_a_file_cut_short_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(workspace.model(1), folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RunnerError, match="outside the file"):
        _load(folder)
