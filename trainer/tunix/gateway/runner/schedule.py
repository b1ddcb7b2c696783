"""The learning rate of a step, as trainer/schedule.cc: linear, cosine or constant, with a warm-up and a floor."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Schedule:
    kind: str
    peak: float
    min_ratio: float
    warmup_steps: int
    total_steps: int

    def rate(self, step: int) -> float:
        """`step` counts finished steps: the first step of a run uses rate(0), which is 0 under a warm-up."""
        if step < self.warmup_steps:
            return self.peak * (step / self.warmup_steps)
        if self.kind == "constant":
            return self.peak
        remaining = max(0.0, (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps))
        if self.kind == "cosine":
            remaining = max(0.0, 0.5 * (1.0 + math.cos(math.pi * (1.0 - remaining))))
        return self.peak * (remaining * (1.0 - self.min_ratio) + self.min_ratio)

    def traced_rate(self, step: jnp.ndarray) -> jnp.ndarray:
        """The same inside a compiled step, in fp32."""
        warm = self.peak * (step.astype(jnp.float32) / max(1, self.warmup_steps))
        if self.kind == "constant":
            after = jnp.float32(self.peak)
        else:
            left = (self.total_steps - step).astype(jnp.float32)
            remaining = jnp.maximum(0.0, left / max(1, self.total_steps - self.warmup_steps))
            if self.kind == "cosine":
                remaining = jnp.maximum(0.0, 0.5 * (1.0 + jnp.cos(jnp.pi * (1.0 - remaining))))
            after = self.peak * (remaining * (1.0 - self.min_ratio) + self.min_ratio)
        return jnp.where(step < self.warmup_steps, warm, after)
