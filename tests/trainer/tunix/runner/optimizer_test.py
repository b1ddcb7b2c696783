"""AdamW against the formulas of trainer/optimizer.h, worked in float64."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runner.optimizer import make_optimizer
from runner.schedule import Schedule

from plan_test import BASE

TRAINING = dataclasses.replace(
    BASE, weight_decay=0.1, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6, max_grad_norm=1.0
)
SCHEDULE = Schedule("linear", 1e-2, 0.1, 2, 8)
SHAPES = {"layers": {"0": {"pre_ffw_norm": {"scale": (3,)}, "mlp": {"kernel": (3, 2)}}}}


class Reference:
    """One parameter."""

    def __init__(self, value: np.ndarray, decay: float) -> None:
        self.value, self.decay = value.astype(np.float64), decay
        self.m, self.v, self.t = np.zeros_like(self.value), np.zeros_like(self.value), 0

    def step(self, gradient: np.ndarray, rate: float) -> None:
        self.t += 1
        self.m = 0.8 * self.m + 0.2 * gradient
        self.v = 0.95 * self.v + 0.05 * gradient**2
        self.value -= rate * self.decay * self.value
        adam = (self.m / (1 - 0.8**self.t)) / (np.sqrt(self.v / (1 - 0.95**self.t)) + 1e-6)
        self.value -= rate * adam


def _tree(chance: np.random.Generator, size: float) -> dict:
    make = lambda shape: jnp.asarray(chance.normal(0, size, shape), jnp.float32)  # noqa: E731
    return jax.tree.map(make, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def _leaves(tree: dict) -> list[np.ndarray]:
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("size", [0.05, 5.0])  # never clipped, always clipped
def test_updates_are_those_of_the_native_engine_and_a_broken_step_changes_nothing(size: float) -> None:
    chance = np.random.default_rng(3)
    parameters = _tree(chance, 1.0)
    optimizer = make_optimizer(TRAINING, SCHEDULE, None)
    state = optimizer.init(parameters)
    kernel, norm = _leaves(parameters)  # "mlp" comes before "pre_ffw_norm"
    references = [Reference(kernel, 0.1), Reference(norm, 0.0)]
    for step in range(6):
        gradients = _tree(chance, size)
        broken = step == 3
        if broken:
            gradients["layers"]["0"]["mlp"]["kernel"] = jnp.full((3, 2), jnp.nan)
        updates, state = optimizer.update(gradients, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        total = math.sqrt(sum(float((g**2).sum()) for g in _leaves(gradients)))
        if not broken:
            assert float(state.grad_norm) == pytest.approx(total, rel=1e-6)
            factor = min(1.0, 1.0 / (total + 1e-6))
            for reference, gradient in zip(references, _leaves(gradients), strict=True):
                reference.step(gradient * factor, SCHEDULE.rate(step))
        for reference, value in zip(references, _leaves(parameters), strict=True):
            assert np.abs(reference.value - value).max() < 1e-6
    assert int(state.steps) == 6


def test_a_masked_gradient_counts_for_nothing_not_even_in_the_norm() -> None:
    mask = np.array([[1, 0], [1, 0], [1, 0]], np.float32)
    optimizer = make_optimizer(TRAINING, SCHEDULE, lambda names, shape: mask if names[-1] == "kernel" else None)
    parameters = jax.tree.map(jnp.zeros, SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    gradients = jax.tree.map(jnp.ones_like, parameters)
    state = optimizer.init(parameters)
    for _ in range(3):
        updates, state = optimizer.update(gradients, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    assert float(state.grad_norm) == pytest.approx(math.sqrt(6), rel=1e-6)
    kernel = np.asarray(parameters["layers"]["0"]["mlp"]["kernel"])
    assert np.all(kernel[:, 1] == 0)
    assert np.all(kernel[:, 0] != 0)
