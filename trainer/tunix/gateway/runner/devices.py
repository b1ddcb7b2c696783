"""The accelerator of a job -> settings of JAX before it starts, the mesh, and what can be said of the devices."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Any

from runner.failure import RunnerError
from runner.job_spec import Accelerator, JobSpec

if TYPE_CHECKING:
    import jax

_PLATFORMS = {"cpu": "cpu", "tpu": "tpu", "gpu": "cuda"}


def prepare_environment(spec: JobSpec) -> None:
    """Before the first import of jax, which reads these once."""
    os.environ["JAX_PLATFORMS"] = _PLATFORMS[spec.accelerator.kind]
    flags = os.environ.get("XLA_FLAGS", "").split()
    if spec.accelerator.kind == "cpu":
        flags.append(f"--xla_force_host_platform_device_count={spec.accelerator.cores}")
    if spec.accelerator.kind == "gpu" and spec.training.deterministic:
        flags.append("--xla_gpu_deterministic_ops=true")
    os.environ["XLA_FLAGS"] = " ".join(flags)


def start_devices(spec: JobSpec) -> jax.sharding.Mesh | None:
    """The mesh of all devices, or None for a single one. Raises RunnerError(unsupported) for others than the spec's."""
    import jax

    if spec.precision == "fp32":
        jax.config.update("jax_default_matmul_precision", "highest")
    accelerator = spec.accelerator
    try:
        found = jax.device_count()
    except RuntimeError as error:
        raise RunnerError(
            "unsupported", f"accelerator.name: {accelerator.name}: there is no {accelerator.kind} here: {error}"
        ) from error
    if jax.process_count() > 1 or found != accelerator.cores:
        raise RunnerError(
            "unsupported",
            f"accelerator.cores: {accelerator.name} has {accelerator.cores} cores, and this one process sees {found}: "
            "accelerators of several hosts are not supported",
        )
    if found == 1:
        return None
    kind = jax.sharding.AxisType.Auto
    return jax.make_mesh((accelerator.fsdp, accelerator.tp), ("fsdp", "tp"), axis_types=(kind, kind))


def device_names() -> list[str]:
    import jax

    return [f"{device.device_kind} {device.id}" for device in jax.devices()]


def peak_memory_bytes() -> int:
    """Of the fullest device; on a CPU, of this process."""
    import jax

    stats: list[dict[str, Any] | None] = [device.memory_stats() for device in jax.local_devices()]
    peaks = [int(stat["peak_bytes_in_use"]) for stat in stats if stat and "peak_bytes_in_use" in stat]
    return max(peaks) if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rows_multiple(accelerator: Accelerator) -> int:
    """google-tunix silently replicates a batch whose rows the fsdp axis does not divide."""
    return accelerator.fsdp
