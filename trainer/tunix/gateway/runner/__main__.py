"""python -m runner --spec WORKDIR/job.json --workdir WORKDIR [--resume] [--dry-run] [--merged]: see ../RUNNER.md."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import logging
import os
import platform
import signal
import sys
import time
import traceback
from pathlib import Path

from runner.checkpoints import CheckpointFolder
from runner.devices import device_names, prepare_environment, start_devices
from runner.events import EventWriter, take_stdout
from runner.failure import EXIT_CANCELLED, RunnerError, explain
from runner.job_spec import JobSpec, load_job_spec


class StopSignal:
    """SIGTERM asks for a stop at the next step; later ones change nothing."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True

    def __call__(self) -> bool:
        return self._asked


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="runner", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="job.json")
    parser.add_argument("--workdir", type=Path, required=True, help="where checkpoints and the result go")
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint, if there is one")
    parser.add_argument("--dry-run", action="store_true", help="check the spec, the rows and the model; train nothing")
    parser.add_argument("--merged", action="store_true", help="of a LoRA job: output/merged_model as well")
    return parser.parse_args(words)


def _versions() -> dict[str, str]:
    packages = ("google-tunix", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "qwix")
    return {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in packages}}


def run(arguments: argparse.Namespace, spec: JobSpec, events: EventWriter, stopped: StopSignal) -> int:
    """Everything after the spec. Returns the exit code."""
    start, training = time.perf_counter(), spec.training
    from runner.model_config import load_gemma_config
    from runner.plan import Plan
    from runner.rows import load_rows
    from runner.weights import WeightFiles, load_model

    config = load_gemma_config(spec.model.path)
    files = WeightFiles(spec.model.path, config)
    if spec.data.longest_row > config.max_positions:
        raise RunnerError(
            "unsupported",
            f"data.longest_row: {spec.data.longest_row} tokens, the model has {config.max_positions} positions",
        )
    rows = load_rows(spec.data, config.vocab_size, spec.training.max_seq_length)
    plan = Plan(spec.training, rows)
    workdir: Path = arguments.workdir
    belongs_to = f"{spec.sha256} {files.fingerprint()}"
    if training.deterministic:  # nor is it gone on with where the bits may be others
        belongs_to += f" {_versions()} {platform.machine()} {len(os.sched_getaffinity(0))}"
    identity = hashlib.sha256(belongs_to.encode()).hexdigest()
    folder = CheckpointFolder(workdir / "checkpoints", spec.output.keep, identity)
    if not arguments.resume and not folder.is_empty():
        raise RunnerError(
            "invalid_spec", f"{folder.root} is not empty: go on with --resume, or take another work folder"
        )
    resumed = folder.open(lambda message: events.emit("warning", message=message)) if arguments.resume else None

    mesh = start_devices(spec)
    import jax
    from flax import nnx

    events.emit(
        "started", versions=_versions(), devices=device_names(), total_steps=plan.total_steps, resumed_from=resumed
    )
    if arguments.dry_run:
        events.emit("completed", steps=0, seconds=time.perf_counter() - start)
        return 0
    if training.packing:
        events.emit("log", message="rows are padded: google-tunix packs none; the numbers are those of packed rows")

    from runner import export
    from runner.gemma import abstract_model
    from runner.lora import add_lora, gradient_mask
    from runner.training import Run

    lora = training.lora
    frozen_bf16 = lora is not None and files.dtype == "BF16"  # the same numbers in half the memory
    dtype = "bfloat16" if spec.precision == "bf16" or (frozen_bf16 and spec.precision != "fp32") else "float32"
    mask_of = None
    with mesh if mesh is not None else contextlib.nullcontext():
        model = load_model(abstract_model(config, training.activation_checkpointing), files, dtype, mesh)
        if lora is not None:
            model = add_lora(model, config, lora, training.seed, rows=spec.accelerator.fsdp)
            mask_of = gradient_mask(config, lora)
    count = {kind: sum(x.size for x in jax.tree.leaves(nnx.state(model, kind))) for kind in (nnx.Param, nnx.LoRAParam)}
    trained = count[nnx.LoRAParam] if lora is not None else count[nnx.Param]
    events.emit("model_loaded", params=count[nnx.Param] - count[nnx.LoRAParam], trained_params=trained)

    folder.root.mkdir(parents=True, exist_ok=True)
    steps = Run(spec, config, rows, plan, mesh, folder, events, stopped).train(model, mask_of)
    if steps < plan.total_steps:
        events.emit("cancelled", step=steps)
        return EXIT_CANCELLED
    output = workdir / "output"
    export.export_folder(spec, config, files, model, output, arguments.merged)
    events.emit("exported", files=export.describe(output))
    events.emit("completed", steps=steps, seconds=time.perf_counter() - start)
    return 0


def main(words: list[str]) -> int:
    arguments = _arguments(words)
    events = take_stdout()
    stopped = StopSignal()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    try:
        spec = load_job_spec(arguments.spec)
        prepare_environment(spec)
        return run(arguments, spec, events, stopped)
    except BaseException as error:  # the gateway must hear of everything
        traceback.print_exc()
        failure = explain(error)
        events.emit("failed", code=failure.code, message=str(failure), hint=failure.hint, retryable=False)
        return failure.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
