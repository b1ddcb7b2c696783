"""Sum of the targets' negative log-likelihoods, from hidden states: the logits of a chunk at a time, in fp32.

google-tunix's own loss builds logits, a one-hot and a log-softmax of [rows, tokens, vocabulary] at once, which alone
fills a TPU core. Here each chunk's logits are made again in the backward pass.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

_MOST_LOGITS = 1 << 26  # of one chunk on one device: 256 MiB


def tokens_per_chunk(rows: int, tokens: int, vocabulary: int, most_logits: int = _MOST_LOGITS) -> int:
    return min(tokens, max(1, most_logits // (rows * vocabulary)))


def _chunk_loss(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array, softcap: float | None
) -> jax.Array:
    logits = jnp.einsum("btd,vd->btv", hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32)
    if softcap is not None:
        logits = jnp.tanh(logits / softcap) * softcap
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return jnp.sum(nll * weights)


def summed_loss(
    hidden: jax.Array,  # [rows, tokens, width]
    head: jax.Array,  # [vocabulary, width]
    targets: jax.Array,  # [rows, tokens]
    weights: jax.Array,  # [rows, tokens] fp32: 1 where there is a target, else 0
    softcap: float | None,
    chunk: int,  # tokens of each row in one piece
) -> jax.Array:
    rows, tokens = targets.shape
    if chunk >= tokens:
        return _chunk_loss(hidden, head, targets, weights, softcap)
    pieces = -(-tokens // chunk)
    room = pieces * chunk - tokens

    def split(x: jax.Array) -> jax.Array:  # [rows, tokens, ...] -> [pieces, rows, chunk, ...]
        padded = jnp.pad(x, [(0, 0), (0, room)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(padded.reshape(rows, pieces, chunk, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def add(total: jax.Array, piece: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + _chunk_loss(piece[0], head, piece[1], piece[2], softcap), None

    total, _ = jax.lax.scan(add, jnp.float32(0), (split(hidden), split(targets), split(weights)))
    return total
