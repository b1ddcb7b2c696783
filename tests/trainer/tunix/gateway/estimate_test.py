"""The gateway's arithmetic against the client's, on the shape of Gemma 7B."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from conftest import BIN, GATEWAY, ROOT
from gateway.accelerators import load_accelerators
from gateway.estimates import estimate
from gateway.models import Model
from gateway.schemas import Lora, TokenTotals, Training

GEMMA_7B = Model(Path("/"), 1, 256_000, 3072, 24_576, 28, 16, 16, 256, 8192)
ROWS, LONGEST = 1000, 2048


def client_estimate(tmp_path: Path, *settings: str) -> dict[str, object]:
    words = [BIN / "gemma-sft", "jobs", "estimate", "--config", ROOT / "configs" / "sft_production.yaml", "--json"]
    for setting in settings:
        words += ["--set", setting]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    made: dict[str, object] = json.loads(done.stdout)
    return made


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (["training.precision=fp32"], {"precision": "fp32"}),
        (["training.precision=bf16"], {"precision": "bf16"}),
        (
            ["training.precision=bf16_mixed", "training.activation_checkpointing=true"],
            {"precision": "bf16_mixed", "activation_checkpointing": True},
        ),
        (["training.precision=bf16_mixed", "lora.rank=16"], {"precision": "bf16_mixed", "lora": Lora(rank=16)}),
        (
            ["training.precision=bf16_mixed", "lora.rank=16", "lora.target_modules=[v_proj, '*.3.mlp.*']"],
            {"precision": "bf16_mixed", "lora": Lora(rank=16, target_modules=["v_proj", "*.3.mlp.*"])},
        ),
    ],
)
def test_both_ends_come_to_the_same_steps_memory_and_cost(
    tmp_path: Path, settings: list[str], changes: dict[str, object]
) -> None:
    theirs = client_estimate(tmp_path, *settings)
    accelerators = load_accelerators(GATEWAY / "accelerators.json", ("tpu-v3-8", "tpu-v2-8"))
    training = Training.model_validate({"num_epochs": 5.0, "batch_size": 16, "max_seq_length": LONGEST} | changes)
    totals = TokenTotals(rows=ROWS, tokens=ROWS * LONGEST, longest_row=LONGEST)
    for accelerator in accelerators.served:
        ours = estimate(training, GEMMA_7B, accelerator, totals, spot=False, model_bytes=2, prices_as_of="")
        assert GEMMA_7B.parameters == theirs["parameters"] == 8_537_680_896
        assert ours.steps == theirs["steps"] == 315
        assert ours.checkpoint_bytes == theirs["checkpoint_bytes"]
        assert ours.final_model_bytes == theirs["final_model_bytes"]
        memory = next(fit for fit in theirs["memory"] if fit["accelerator"] == accelerator.name)  # type: ignore[attr-defined]
        assert ours.memory.needed_bytes_per_core == pytest.approx(memory["needed_bytes_per_core"], rel=1e-3)
        assert ours.memory.fits == memory["fits"]
    ours = estimate(training, GEMMA_7B, accelerators.served[0], totals, spot=False, model_bytes=2, prices_as_of="")
    assert ours.usd.high == pytest.approx(theirs["usd"]["high"], rel=1e-3)  # type: ignore[index]
    assert ours.usd_per_hour == theirs["usd_per_hour"]


def test_the_guides_advice_on_memory_is_checked_by_arithmetic() -> None:
    """7B in full fp32 fits neither; LoRA on v3-8 does (16 GiB and 8 GiB a core)."""
    v3, v2 = load_accelerators(GATEWAY / "accelerators.json", ("tpu-v3-8", "tpu-v2-8")).served
    totals = TokenTotals(rows=1000, tokens=100_000, longest_row=128)
    common = {"batch_size": 8, "activation_checkpointing": True}

    def fits(accelerator: object, **changes: object) -> bool:
        training = Training.model_validate(common | changes)
        made = estimate(training, GEMMA_7B, accelerator, totals, spot=False, model_bytes=2, prices_as_of="")  # type: ignore[arg-type]
        return made.memory.fits

    assert not fits(v3, precision="fp32")
    assert not fits(v2, precision="bf16")
    assert fits(v3, precision="bf16")
    assert fits(v3, precision="bf16_mixed", lora=Lora(rank=16))
