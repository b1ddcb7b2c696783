"""The loss in pieces is the loss, and never holds all logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runner.loss import summed_loss, tokens_per_chunk

ROWS, TOKENS, WIDTH, VOCABULARY = 2, 50, 8, 5000


def _inputs() -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    chance = np.random.default_rng(1)
    return (
        jnp.asarray(chance.normal(size=(ROWS, TOKENS, WIDTH)), jnp.float32),
        jnp.asarray(chance.normal(size=(VOCABULARY, WIDTH)), jnp.float32),
        jnp.asarray(chance.integers(0, VOCABULARY, (ROWS, TOKENS)), jnp.int32),
        jnp.asarray(chance.random((ROWS, TOKENS)) < 0.5, jnp.float32),
    )


def _reference(softcap: float | None) -> float:
    """In float64, token by token."""
    hidden, head, targets, weights = (np.asarray(x, np.float64) for x in _inputs())
    total = 0.0
    for row, token in zip(*np.nonzero(weights), strict=True):
        logits = head @ hidden[row, token]
        if softcap:
            logits = softcap * np.tanh(logits / softcap)
        total += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[int(targets[row, token])]
    return total


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_any_chunk_gives_the_same_loss_and_gradients(softcap: float | None) -> None:
    hidden, head, targets, weights = _inputs()

    def of(chunk: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        function = lambda h, w: summed_loss(h, w, targets, weights, softcap, chunk)  # noqa: E731
        return jax.jit(jax.value_and_grad(function, argnums=(0, 1)))(hidden, head)

    whole, gradients = of(TOKENS)
    assert float(whole) == pytest.approx(_reference(softcap), rel=1e-6)
    for chunk in (1, 7, 25, 49):
        loss, others = of(chunk)
        assert float(loss) == pytest.approx(float(whole), rel=1e-6)
        for one, other in zip(gradients, others, strict=True):
            assert float(jnp.abs(one - other).max()) < 1e-5


def test_memory_grows_with_the_chunk_and_not_with_the_text() -> None:
    hidden, head, targets, weights = _inputs()

    def temporaries(chunk: int) -> int:
        function = lambda h, w: summed_loss(h, w, targets, weights, None, chunk)  # noqa: E731
        compiled = jax.jit(jax.grad(function, argnums=(0, 1))).lower(hidden, head).compile()
        return int(compiled.memory_analysis().temp_size_in_bytes)

    all_logits = ROWS * TOKENS * VOCABULARY * 4
    assert temporaries(TOKENS) >= all_logits
    assert temporaries(5) < all_logits / 3


def test_chunks_are_as_long_as_the_limit_allows() -> None:
    assert tokens_per_chunk(8, 2048, 256_000, 1 << 26) == 32
    assert tokens_per_chunk(4, 100, 500, 1 << 26) == 100
    assert tokens_per_chunk(64, 2048, 262_144, 1 << 20) == 1
