"""google-tunix's Gemmas, ending at the final norm: the head belongs to the loss (runner/loss.py)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from tunix.models.gemma import model as gemma
from tunix.models.gemma3 import model as gemma3

from runner.model_config import GemmaConfig


class _HiddenStates:
    """Replaces the forward pass of both classes: the same layers in the same order, without the logits."""

    def __call__(
        self,
        last_tokens: jax.Array,  # [rows, tokens]
        positions: jax.Array,  # [rows, tokens]
        cache: None,
        attention_mask: jax.Array,  # [rows, tokens, tokens]
    ) -> jax.Array:  # [rows, tokens, width]
        model: Any = self
        x = model.embedder.encode(last_tokens)
        if model.pad_id is not None:  # its row learns from the head alone
            x = jnp.where((last_tokens == model.pad_id)[..., None], jax.lax.stop_gradient(x), x)
        for layer in model.layers:
            _, x = layer(x, positions, None, attention_mask)
        return model.final_norm(x)


class Gemma12(_HiddenStates, gemma.Gemma):
    pass


class Gemma3(_HiddenStates, gemma3.Gemma3):
    pass


def abstract_model(config: GemmaConfig, recompute: bool) -> nnx.Module:
    """The model's structure, without arrays. `recompute`: each layer's activations again in the backward pass."""
    if config.family == 3:
        scale = gemma3.QueryPreAttentionNormalisation
        by_head = config.query_scalar == config.head_dim
        shape3 = gemma3.ModelConfig(
            num_layers=config.num_layers,
            num_embed=config.vocab_size,
            embed_dim=config.hidden_size,
            hidden_dim=config.intermediate_size,
            num_heads=config.num_heads,
            head_dim=config.head_dim,
            num_kv_heads=config.num_kv_heads,
            sliding_window_size=config.sliding_window,
            local_base_frequency=config.rope_theta_local,  # type: ignore[arg-type]  # only ever used as a number
            global_base_frequency=config.rope_theta_global,  # type: ignore[arg-type]
            global_scale_factor=config.rope_factor_global,
            query_pre_attn_norm=scale.BY_ONE_OVER_SQRT_HEAD_DIM
            if by_head
            else scale.BY_ONE_OVER_SQRT_EMBED_DIM_DIV_NUM_HEADS,
            remat_config=gemma3.RematConfig.DECODER if recompute else gemma3.RematConfig.NONE,
            param_dtype=jnp.float32,
        )
        return _with_pad_id(nnx.eval_shape(lambda: Gemma3(shape3, rngs=nnx.Rngs(params=0))), config)
    kinds = {"full_attention": gemma.AttentionType.GLOBAL, "sliding_attention": gemma.AttentionType.LOCAL_SLIDING}
    shape = gemma.ModelConfig(
        num_layers=config.num_layers,
        num_embed=config.vocab_size,
        embed_dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        num_kv_heads=config.num_kv_heads,
        final_logit_softcap=config.logit_softcap,
        use_post_attn_norm=config.family == 2,
        use_post_ffw_norm=config.family == 2,
        attention_types=tuple(kinds[kind] for kind in config.layer_types),
        attn_logits_soft_cap=config.attention_softcap,
        sliding_window_size=config.sliding_window,
        remat_config=gemma.RematConfig.DECODER if recompute else gemma.RematConfig.NONE,
    )
    return _with_pad_id(nnx.eval_shape(lambda: Gemma12(shape, rngs=nnx.Rngs(params=0))), config)


def _with_pad_id(model: Any, config: GemmaConfig) -> nnx.Module:
    model.pad_id = config.pad_id
    return model
