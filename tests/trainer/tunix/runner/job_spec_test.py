"""A spec is taken whole or refused: nothing in it is ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runner.failure import RunnerError
from runner.job_spec import load_job_spec

RUNNER_MD = Path(__file__).resolve().parents[4] / "trainer" / "tunix" / "gateway" / "RUNNER.md"
LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": ["q_proj"], "rslora": False}


def _documented() -> dict[str, Any]:
    """The example of the contract itself."""
    text = RUNNER_MD.read_text()
    return json.loads(text.split("```json\n")[1].split("```")[0])


def _load(folder: Path, spec: dict[str, Any]) -> Any:
    (folder / "job.json").write_text(json.dumps(spec))
    return load_job_spec(folder / "job.json")


def test_the_documented_spec_is_read(tmp_path: Path) -> None:
    spec = _load(tmp_path, _documented())
    assert spec.job_id == "job_abc123xyz"
    assert (spec.accelerator.kind, spec.accelerator.fsdp) == ("tpu", 8)
    assert spec.precision == "bf16_mixed"
    assert spec.training.lora is None


@pytest.mark.parametrize(
    ("section", "key", "value", "named", "code"),
    [
        ("training", "optimizer", "adafactor", "training.optimizer", "unsupported"),
        ("training", "lr_scheduler", "polynomial", "training.lr_scheduler", "unsupported"),
        ("training", "precision", "fp8", "training.precision", "unsupported"),
        ("training", "neftune_alpha", 5, "training.neftune_alpha is not known", "unsupported"),
        ("training", "lora", LORA | {"dropout": 0.1}, "lora.dropout", "unsupported"),
        ("training", "lora", LORA | {"modules_to_save": []}, "training.lora.modules_to_save", "unsupported"),
        ("data", "format", "text", "data.format", "unsupported"),
        ("output", "model_dtype", "int8", "output.model_dtype", "unsupported"),
        ("accelerator", "kind", "npu", "accelerator.kind", "unsupported"),
        ("accelerator", "cores", 4, "accelerator.mesh", "invalid_spec"),
    ],
)
def test_what_cannot_be_honoured_is_named(
    tmp_path: Path, section: str, key: str, value: Any, named: str, code: str
) -> None:
    spec = _documented()
    spec[section][key] = value
    with pytest.raises(RunnerError, match=named) as caught:
        _load(tmp_path, spec)
    assert caught.value.code == code


def test_every_member_of_every_section_must_be_there(tmp_path: Path) -> None:
    for section in ("model", "data", "training", "accelerator", "output"):
        for key in _documented()[section]:
            spec = _documented()
            del spec[section][key]
            with pytest.raises(RunnerError) as caught:
                _load(tmp_path, spec)
            assert caught.value.code == "invalid_spec", (section, key)
            assert key in str(caught.value)


def test_the_digest_leaves_out_what_changes_no_number(tmp_path: Path) -> None:
    first, other = _documented(), _documented()
    other["job_id"], other["output"]["keep"] = "job_000000000", 7
    assert _load(tmp_path, first).sha256 == _load(tmp_path, other).sha256
    other["training"]["seed"] = 43
    assert _load(tmp_path, first).sha256 != _load(tmp_path, other).sha256
