"""The run itself: google-tunix's PeftTrainer with our batches, loss, optimizer, metrics and checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from tunix.sft import peft_trainer
from tunix.sft import utils as tunix_utils

from runner import devices
from runner.batches import BatchShapes, MicroBatch, micro_batches
from runner.checkpoints import CheckpointFolder, Saved, SealedCheckpointManager
from runner.events import EventWriter
from runner.failure import RunnerError
from runner.job_spec import JobSpec
from runner.loss import summed_loss, tokens_per_chunk
from runner.model_config import GemmaConfig
from runner.optimizer import MaskOf, make_optimizer
from runner.plan import Plan, Step
from runner.rows import Rows

_MOST_SKIPPED_IN_A_ROW = 10  # as the native engine


@dataclasses.dataclass
class _Running:
    """A step whose values may still be on their way from the device."""

    step: Step
    losses: list[jax.Array]
    grad_norm: jax.Array
    data_seconds: float


def _cast(model: Any, dtype: Any) -> Any:
    """The model with its fp32 arrays as `dtype`; gradients come back in fp32."""
    graph, state = nnx.split(model)
    cast = jax.tree.map(lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x, state)
    return nnx.merge(graph, cast)


def make_loss(config: GemmaConfig, precision: str, fsdp: int) -> Callable[..., jax.Array]:
    def loss(
        model: Any, ids: jax.Array, targets: jax.Array, weights: jax.Array, lengths: jax.Array, denominator: jax.Array
    ) -> jax.Array:
        rows, length = ids.shape
        positions = jnp.broadcast_to(jnp.arange(length), (rows, length))
        mask = tunix_utils.make_causal_attn_mask(positions < lengths[:, None])
        used = model if precision == "fp32" else _cast(model, jnp.bfloat16)
        hidden = used(ids, positions, None, mask)
        head = used.embedder.input_embedding[...]
        chunk = tokens_per_chunk(-(-rows // fsdp), length, config.vocab_size)
        return summed_loss(hidden, head, targets, weights, config.logit_softcap, chunk) / denominator

    return loss


class Trainer(peft_trainer.PeftTrainer):
    """PeftTrainer that tells each step's own loss and gradient norm, before a checkpoint at the latest.

    One step is always in flight: its values are read when the next one is under way.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        config: peft_trainer.TrainingConfig,
        on_step: Callable[[_Running], None],
        on_compiled: Callable[[float], None],
    ) -> None:
        super().__init__(model, optimizer, config)
        self._accumulation = config.get_with_default("gradient_accumulation_steps", 1)
        self._on_step = on_step
        self._on_compiled = on_compiled
        self._started: float | None = time.perf_counter()
        self._losses: list[jax.Array] = []
        self._in_flight: _Running | None = None
        self.upcoming: tuple[Step, float] | None = None  # the step whose batches are handed out, and what they took

    def create_train_step_fn(self) -> Callable[..., Any]:
        return self._step

    def _step(self, model: nnx.Module, optimizer: nnx.Optimizer, inputs: MicroBatch) -> tuple[Any, Any, Any]:
        wrt = nnx.LoRAParam if self._lora_enabled else nnx.Param
        loss, gradients = nnx.value_and_grad(self.loss_fn, argnums=nnx.DiffState(0, wrt))(model, **inputs)
        # A loss that is not finite makes the step one: the optimizer sees it in the gradients.
        gradients = jax.tree.map(lambda g: jnp.where(jnp.isfinite(loss), g, jnp.nan), gradients)
        optimizer.update(model, gradients)
        state = optimizer.opt_state
        if self._accumulation > 1:
            # optax clears its accumulator by multiplying with zero, which NaN survives.
            done = state.mini_step[...] == 0
            for leaf in jax.tree.leaves(state.acc_grads, is_leaf=lambda x: isinstance(x, nnx.Variable)):
                leaf[...] = jnp.where(done, 0, leaf[...])
            state = state.inner_opt_state
        norm = state.grad_norm[...]
        return loss, (loss, norm), norm

    def _post_process_train_step(self, aux: Any) -> None:
        if self._started is not None:
            self._on_compiled(time.perf_counter() - self._started)
            self._started = None
        self._losses.append(aux[0])
        if (self._iter_steps + 1) % self._accumulation:
            return
        previous, self._in_flight = self._in_flight, None
        assert self.upcoming is not None
        running = _Running(self.upcoming[0], self._losses, aux[1], self.upcoming[1])
        self._losses = []
        if previous is not None:
            self._on_step(previous)
        self._in_flight = running

    def tell_all(self) -> None:
        running, self._in_flight = self._in_flight, None
        if running is not None:
            self._on_step(running)


class Run:
    """Trains a loaded model to the end of its plan, or until `stopped()`."""

    def __init__(
        self,
        spec: JobSpec,
        config: GemmaConfig,
        rows: Rows,
        plan: Plan,
        mesh: jax.sharding.Mesh | None,
        checkpoints: CheckpointFolder,
        events: EventWriter,
        stopped: Callable[[], bool],
    ) -> None:
        self._spec, self._config, self._rows, self._plan = spec, config, rows, plan
        self._mesh, self._checkpoints, self._events, self._stopped = mesh, checkpoints, events, stopped
        self._accumulation = spec.training.gradient_accumulation_steps
        self._skipped_in_a_row = 0
        self._last_time = time.perf_counter()

    def train(self, model: nnx.Module, mask_of: MaskOf | None) -> int:
        """Returns the finished steps. The model is trained in place."""
        with self._mesh if self._mesh is not None else contextlib.nullcontext():
            trainer = self._make_trainer(model, mask_of)
            first = trainer.train_steps
            if self._stopped() and first < self._plan.total_steps:
                return first
            # close() is called by train(), saves the last step, and tells it first.
            trainer.train(self._batches(trainer, first))
            return trainer.train_steps

    def _make_trainer(self, model: nnx.Module, mask_of: MaskOf | None) -> Trainer:
        spec, plan = self._spec, self._plan
        every = spec.output.checkpoint_every or plan.total_steps
        options = ocp.CheckpointManagerOptions(
            save_decision_policy=ocp.checkpoint_managers.FixedIntervalPolicy(every),
            max_to_keep=None,  # CheckpointFolder lets old ones go, when the new one is sealed
            enable_async_checkpointing=False,
        )
        config = peft_trainer.TrainingConfig(
            eval_every_n_steps=1 << 60,
            max_steps=plan.total_steps,
            gradient_accumulation_steps=self._accumulation if self._accumulation > 1 else None,
            checkpoint_root_directory=str(self._checkpoints.root.resolve()),
            checkpointing_options=options,
        )
        trainer = Trainer(
            model,
            make_optimizer(spec.training, plan.schedule, mask_of),
            config,
            on_step=self._tell_step,
            on_compiled=lambda seconds: self._events.emit("compiled", seconds=seconds),
        )
        trainer.with_loss_fn(make_loss(self._config, spec.precision, spec.accelerator.fsdp))
        trainer.checkpoint_manager = SealedCheckpointManager(
            trainer.checkpoint_manager, self._checkpoints, trainer.tell_all, self._tell_checkpoint
        )
        if self._mesh is None:  # committed to the device, so that the first and the second step are compiled as one
            for part in (trainer.optimizer, model):
                nnx.update(part, jax.device_put(nnx.state(part), jax.devices()[0]))
        return trainer

    def _batches(self, trainer: Trainer, first: int) -> Iterator[MicroBatch | None]:
        for _ in range(trainer.iter_steps):  # the trainer throws away as many as it has seen
            yield None
        spec = self._spec
        shapes = BatchShapes(
            longest=int(self._rows.lengths.max()),
            rows=0 if spec.training.batch_tokens is not None else spec.training.batch_size or 0,
            multiple=devices.rows_multiple(spec.accelerator),
        )
        for step in self._plan.steps(first):
            if self._stopped():
                return
            start = time.perf_counter()
            batches = list(micro_batches(self._rows, step, self._accumulation, shapes))
            trainer.upcoming = (step, time.perf_counter() - start)
            yield from batches

    def _tell_step(self, running: _Running) -> None:
        step, spec = running.step, self._spec
        loss = float(np.mean([np.float64(np.asarray(value)) for value in running.losses]))
        norm = float(np.asarray(running.grad_norm))
        now = time.perf_counter()
        seconds, self._last_time = now - self._last_time, now
        self._events.emit(
            "step",
            step=step.number,
            epoch=step.epoch,
            loss=loss,
            learning_rate=self._plan.schedule.rate(step.number - 1),
            grad_norm=norm,
            tokens=step.tokens,
            target_tokens=step.target_tokens,
            tokens_per_second=step.tokens / max(seconds, 1e-9),
            step_seconds=seconds,
            data_wait_seconds=running.data_seconds,
            peak_memory_bytes=devices.peak_memory_bytes(),
            device=spec.accelerator.kind,
        )
        if math.isfinite(loss) and math.isfinite(norm):
            self._skipped_in_a_row = 0
            return
        self._skipped_in_a_row += 1
        rows = ", ".join(str(row + 1) for row in np.concatenate(step.micro_batches)[:20])
        if spec.training.on_nonfinite == "stop" or self._skipped_in_a_row >= _MOST_SKIPPED_IN_A_ROW:
            raise RunnerError(
                "nonfinite",
                f"step {step.number}: loss {loss}, gradient norm {norm}: not finite; nothing was updated. "
                f"Its rows: {rows}",
                "look at these rows, lower training.learning_rate, or set training.on_nonfinite: skip",
            )
        self._events.emit(
            "warning", message=f"step {step.number}: loss or gradient not finite, skipped; its rows: {rows}"
        )

    def _tell_checkpoint(self, saved: Saved) -> None:
        path = saved.path.relative_to(self._checkpoints.root.parent)
        self._events.emit("checkpoint", step=saved.step, path=str(path), bytes=saved.bytes, seconds=saved.seconds)
