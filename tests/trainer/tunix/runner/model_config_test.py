"""What google-tunix hard-codes is refused by name, and what it has is read in both of Hugging Face's spellings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runner.failure import RunnerError
from runner.model_config import load_gemma_config

SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 7, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8,
}  # fmt: skip
FAMILIES = {1: "gemma", 2: "gemma2", 3: "gemma3_text"}


def _write(folder: Path, family: int, changes: dict[str, Any]) -> Path:
    config = {"model_type": FAMILIES[family], **SIZES, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        (1, {"rms_norm_eps": 1e-5}, "rms_norm_eps"),
        (1, {"rope_theta": 500.0}, "rope_theta"),
        (2, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, "rope_theta"),
        (2, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling"),
        (2, {"query_pre_attn_scalar": 24}, "query_pre_attn_scalar"),
        (3, {"query_pre_attn_scalar": 10}, "query_pre_attn_scalar"),
        (3, {"sliding_window_pattern": 4}, "layer_types"),
        (3, {"layer_types": ["full_attention"] * 7}, "layer_types"),
        (3, {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_scaling"),
        (3, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        (1, {"head_dim": 15}, "head_dim"),
        (1, {"tie_word_embeddings": False}, "tie_word_embeddings"),
        (1, {"attention_bias": True}, "attention_bias"),
        (2, {"attention_dropout": 0.1}, "attention_dropout"),
        (1, {"hidden_act": "relu"}, "hidden_act"),
        (3, {"quantization_config": {"bits": 4}}, "quantization_config"),
        (3, {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ],
)
def test_what_is_hard_coded_there_is_refused_by_name(
    tmp_path: Path, family: int, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(RunnerError, match=named) as caught:
        load_gemma_config(_write(tmp_path, family, changes))
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(("given", "read"), [({}, 0), ({"pad_token_id": 7}, 7), ({"pad_token_id": -1}, 95)])
def test_the_padding_token_is_that_of_the_file(tmp_path: Path, given: dict[str, Any], read: int) -> None:
    assert load_gemma_config(_write(tmp_path, 1, given)).pad_id == read
    assert load_gemma_config(_write(tmp_path, 3, {"pad_token_id": None})).pad_id is None


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=r"(?s)attention_bias.*rms_norm_eps.*rope_theta"):
        load_gemma_config(_write(tmp_path, 1, {"rope_theta": 5.0, "rms_norm_eps": 1e-3, "attention_bias": True}))


def test_both_spellings_of_gemma_3s_rope_are_read(tmp_path: Path) -> None:
    old = {"rope_theta": 2e4, "rope_local_base_freq": 100.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    new = {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e4},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        }
    }
    first = load_gemma_config(_write(tmp_path, 3, old))
    assert load_gemma_config(_write(tmp_path, 3, new)) == first
    assert (first.rope_theta_global, first.rope_theta_local, first.rope_factor_global) == (2e4, 100.0, 8.0)
    assert first.layer_types == ("sliding_attention",) * 5 + ("full_attention", "sliding_attention")


def test_what_the_file_leaves_out_is_transformers_default(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gemma2"}')
    config = load_gemma_config(tmp_path)
    assert (config.num_layers, config.hidden_size, config.head_dim, config.query_scalar) == (26, 2304, 256, 256)
    assert (config.attention_softcap, config.logit_softcap, config.sliding_window) == (50.0, 30.0, 4096)
    assert config.layer_types[:3] == ("sliding_attention", "full_attention", "sliding_attention")


def test_other_models_and_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="not found") as caught:
        load_gemma_config(tmp_path)
    assert caught.value.code == "model_invalid"
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(RunnerError, match="no Gemma 1, 2 or 3"):
        load_gemma_config(tmp_path)
