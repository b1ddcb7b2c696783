"""config.json of a Hugging Face folder -> google-tunix's configuration of the same model, or a refusal by name.

google-tunix has much of a Gemma in its code rather than in its configuration: what a folder says otherwise cannot be
trained there, and training it anyway would train another model.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from runner.failure import RunnerError

_FAMILIES = {"gemma": 1, "gemma2": 2, "gemma3_text": 3, "gemma3": 3}
_VOCABULARY = {1: 256_000, 2: 256_000, 3: 262_208}
_SLIDING, _GLOBAL = "sliding_attention", "full_attention"
_OFF = {  # honoured only with the value that switches the feature off
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0,
    "use_bidirectional_attention": False,
    "is_encoder_decoder": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "partial_rotary_factor": 1,
}


@dataclasses.dataclass(frozen=True)
class GemmaConfig:
    """A Gemma as Hugging Face describes it, with transformers' defaults for what the file leaves out."""

    family: int  # 1, 2, 3
    image_text: bool
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layer_types: tuple[str, ...]
    sliding_window: int | None
    attention_softcap: float | None
    logit_softcap: float | None
    query_scalar: float
    rope_theta_global: float
    rope_theta_local: float
    rope_factor_global: float
    max_positions: int
    pad_id: int | None  # the embedding of this id learns from the head alone, as in Hugging Face

    @property
    def fused_qkv(self) -> bool:
        """google-tunix keeps q, k and v in one array where there are as many of each."""
        return self.num_heads == self.num_kv_heads


class _Problems:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []

    def add(self, key: str, what: str) -> None:
        self._lines.append(f'"{key}": {what}')

    def raise_if_any(self) -> None:
        if self._lines:
            raise RunnerError(
                "unsupported",
                f"{self._path}: google-tunix cannot train this model: " + "; ".join(self._lines),
                "train it with --backend native",
            )


def _rope(text: dict[str, Any], family: int, problems: _Problems) -> tuple[float, float, float]:
    """(theta of global layers, theta of local layers, linear factor of global layers), from either spelling."""
    parameters = text.get("rope_parameters") or {}
    scaling = text.get("rope_scaling") or {}
    if family < 3:
        for name, rope in (("rope_parameters", parameters), ("rope_scaling", scaling)):
            if rope.get("rope_type", rope.get("type", "default")) != "default":
                problems.add(name, f"{json.dumps(rope)}: rotary embeddings are not scaled in Gemma {family}")
        theta = parameters.get("rope_theta", text.get("rope_theta", 10_000.0))
        return theta, theta, 1.0
    full, sliding = parameters.get(_GLOBAL) or {}, parameters.get(_SLIDING) or {}
    scaled = scaling or full
    kind = scaled.get("rope_type", scaled.get("type", "default"))
    if kind not in ("default", "linear"):
        problems.add("rope_scaling", f'"{kind}": only "linear" and "default" are there')
    if sliding.get("rope_type", sliding.get("type", "default")) != "default":
        problems.add("rope_parameters.sliding_attention", "local layers are not scaled")
    factor = float(scaled.get("factor", 1.0)) if kind == "linear" else 1.0
    if factor < 1:
        problems.add("rope_scaling.factor", f"{factor}: below 1")
    theta_global = scaling.get("rope_theta", full.get("rope_theta", text.get("rope_theta", 1_000_000.0)))
    theta_local = sliding.get("rope_theta", text.get("rope_local_base_freq", 10_000.0))
    return float(theta_global), float(theta_local), factor


def _layer_types(text: dict[str, Any], family: int, layers: int) -> tuple[str, ...]:
    given = text.get("layer_types")
    if given:
        return tuple(given)
    if family == 1:
        return (_GLOBAL,) * layers
    pattern = 2 if family == 2 else int(text.get("sliding_window_pattern") or text.get("_sliding_window_pattern") or 6)
    return tuple(_GLOBAL if (layer + 1) % pattern == 0 else _SLIDING for layer in range(layers))


def _pad_id(text: dict[str, Any], family: int) -> int | None:
    """A negative one counts from the end of the embedding, null means none."""
    given = text.get("pad_token_id", 0)
    if given is None or int(given) >= 0:
        return None if given is None else int(given)
    return int(text.get("vocab_size", _VOCABULARY[family])) + int(given)


def _check(config: GemmaConfig, text: dict[str, Any], problems: _Problems) -> None:
    for key, only in _OFF.items():
        value = text.get(key)
        if value is not None and value != only:
            problems.add(key, f"{json.dumps(value)}: only {json.dumps(only)} is there")
    if text.get("quantization_config"):
        problems.add("quantization_config", "quantized models cannot be fine-tuned")
    eps = text.get("rms_norm_eps", 1e-6)
    if eps != 1e-6:
        problems.add("rms_norm_eps", f"{eps}: 1e-06 is written into its RMSNorm")
    key = "hidden_act" if config.family == 1 else "hidden_activation"
    known = ("gelu_pytorch_tanh", "gelu") if config.family == 1 else ("gelu_pytorch_tanh",)
    if (text.get(key) or "gelu_pytorch_tanh") not in known:
        problems.add(key, f"{json.dumps(text[key])}: only the tanh form of GELU is there")
    if config.head_dim % 2:
        problems.add("head_dim", f"{config.head_dim}: rotary embeddings need an even number")
    if config.num_heads % config.num_kv_heads:
        problems.add("num_key_value_heads", f"{config.num_kv_heads} does not divide {config.num_heads} heads")
    if config.family < 3 and config.rope_theta_global != 10_000:
        problems.add("rope_theta", f"{config.rope_theta_global}: 10000 is written into its Gemma 1 and 2")
    scalars = {float(config.head_dim)}
    if config.family == 3:
        scalars.add(float(config.hidden_size // config.num_heads))
    if config.query_scalar not in scalars:
        allowed = " or ".join(f"{scalar:g}" for scalar in sorted(scalars))
        problems.add("query_pre_attn_scalar", f"{config.query_scalar:g}: queries are scaled by {allowed}")
    if len(config.layer_types) != config.num_layers:
        problems.add("layer_types", f"{len(config.layer_types)} of them for {config.num_layers} layers")
    elif config.family == 3 and config.layer_types != _layer_types({}, 3, config.num_layers):
        problems.add("layer_types", "five sliding layers, then a global one, are written into its Gemma 3")
    elif config.family == 1 and _SLIDING in config.layer_types:
        problems.add("layer_types", "Gemma 1 has no sliding layers")
    if config.family == 3 and config.attention_softcap is not None:
        problems.add("attn_logit_softcapping", f"{config.attention_softcap}: attention of its Gemma 3 has no soft-cap")


def load_gemma_config(folder: Path) -> GemmaConfig:
    """Raises RunnerError: model_invalid for what is no Gemma, unsupported for one that google-tunix has not."""
    path = folder / "config.json"
    try:
        root = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RunnerError("model_invalid", f"{path}: not found; a model is a Hugging Face folder") from error
    except (ValueError, RecursionError) as error:
        raise RunnerError("model_invalid", f"{path}: not JSON: {error}") from error
    kind = root.get("model_type") if isinstance(root, dict) else None
    family = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise RunnerError("model_invalid", f'{path}: "model_type": {json.dumps(kind)} is no Gemma 1, 2 or 3')
    image_text = root["model_type"] == "gemma3"
    text = root.get("text_config") if image_text else root
    if not isinstance(text, dict):
        raise RunnerError("model_invalid", f'{path}: an image-text model needs "text_config"')
    first, second = family == 1, family == 2
    problems = _Problems(path)
    try:
        theta_global, theta_local, factor = _rope(text, family, problems)
        layers = int(text.get("num_hidden_layers", 28 if first else 26))
        head_dim = int(text.get("head_dim", 256))
        layer_types = _layer_types(text, family, layers)

        def softcap(key: str, otherwise: float | None) -> float | None:
            value = text.get(key, otherwise)
            return None if value is None else float(value)

        config = GemmaConfig(
            family=family,
            image_text=image_text,
            vocab_size=int(text.get("vocab_size", _VOCABULARY[family])),
            hidden_size=int(text.get("hidden_size", 3072 if first else 2304)),
            intermediate_size=int(text.get("intermediate_size", 24_576 if first else 9216)),
            num_layers=layers,
            num_heads=int(text.get("num_attention_heads", 16 if first else 8)),
            num_kv_heads=int(text.get("num_key_value_heads", 16 if first else 4)),
            head_dim=head_dim,
            layer_types=layer_types,
            sliding_window=int(text.get("sliding_window") or 4096) if _SLIDING in layer_types else None,
            attention_softcap=softcap("attn_logit_softcapping", 50.0 if second else None) if not first else None,
            logit_softcap=softcap("final_logit_softcapping", 30.0 if second else None) if not first else None,
            query_scalar=float(head_dim if first else text.get("query_pre_attn_scalar", 256)),
            rope_theta_global=theta_global,
            rope_theta_local=theta_local,
            rope_factor_global=factor,
            max_positions=int(text.get("max_position_embeddings", 131_072 if family == 3 else 8192)),
            pad_id=_pad_id(text, family),
        )
        if image_text and root.get("tie_word_embeddings") is False:
            problems.add("tie_word_embeddings", "false: only true is there")
        _check(config, text, problems)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RunnerError("model_invalid", f"{path}: {error}") from error
    problems.raise_if_any()
    return config
