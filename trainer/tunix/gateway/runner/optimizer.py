"""AdamW as the native engine does it (trainer/optimizer.h, trainer/train_step.cc): gradients clipped by their global
norm, weight decay on everything but norms, a step that is not finite changes nothing but the count of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from runner.job_spec import Training
from runner.schedule import Schedule

Tree = Any


class StepState(NamedTuple):
    steps: jax.Array  # finished ones, skipped ones too: the schedule's
    grad_norm: jax.Array  # of the last step, before clipping
    adam: Any


MaskOf = Callable[[list[str], tuple[int, ...]], np.ndarray | None]


def _names(path: tuple[Any, ...]) -> list[str]:
    """Of a leaf in a state of the model, without the ".value" that a variable may add."""
    names = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]
    return names[:-1] if names and names[-1] == "value" else names


def decays(names: list[str]) -> bool:
    """Hugging Face's rule: no norms (and no biases, of which there are none)."""
    return not any("norm" in name for name in names)


def make_optimizer(training: Training, schedule: Schedule, mask_of: MaskOf | None) -> optax.GradientTransformation:
    """`mask_of`: where a parameter's gradient counts; some have no native counterpart (runner/lora.py)."""
    adam = optax.chain(
        optax.scale_by_adam(b1=training.adam_beta1, b2=training.adam_beta2, eps=training.adam_epsilon),
        optax.add_decayed_weights(
            training.weight_decay,
            mask=lambda params: jax.tree_util.tree_map_with_path(lambda path, _: decays(_names(path)), params),
        ),
    )

    def masked(path: tuple[Any, ...], gradient: jax.Array) -> jax.Array:
        assert mask_of is not None
        mask = mask_of(_names(path), gradient.shape)
        return gradient if mask is None else gradient * mask

    def init(params: Tree) -> StepState:
        return StepState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32), adam.init(params))

    def update(gradients: Tree, state: StepState, params: Tree | None = None) -> tuple[Tree, StepState]:
        if mask_of is not None:
            gradients = jax.tree_util.tree_map_with_path(masked, gradients)
        squares = [jnp.sum(jnp.square(g.astype(jnp.float32))) for g in jax.tree.leaves(gradients)]
        norm = jnp.sqrt(sum(squares))
        finite = jnp.isfinite(norm)
        if training.max_grad_norm > 0:
            coefficient = jnp.minimum(1.0, training.max_grad_norm / (norm + 1e-6))
            gradients = jax.tree.map(lambda g: (g * coefficient).astype(g.dtype), gradients)
        updates, adam_state = adam.update(gradients, state.adam, params)
        rate = schedule.traced_rate(state.steps)
        updates = jax.tree.map(lambda u: jnp.where(finite, -rate * u, 0).astype(u.dtype), updates)
        adam_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), adam_state, state.adam)
        return updates, StepState(state.steps + 1, norm, adam_state)

    return optax.GradientTransformation(init, update)
